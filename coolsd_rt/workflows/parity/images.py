"""Parity of whole pictures: the loop on both engines, in lockstep, from the same uniforms.

Where the tokens part, looks for the decision that parted them and measures it: how far its uniform was from the
boundary, and how far the two sides' probabilities were from each other there. A difference is explained when the
decision follows on each side from that side's own probabilities; how near those have to be is `parity`'s to say. Does
not know which backend either side is.

Legend as in `coolsd_rt.contract`. Window index i counts from the first undecided token.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from coolsd_rt.law.residual import residual
from coolsd_rt.ops import process_logits, sample
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine, Session
from coolsd_rt.runtime.randomness import ACCEPT, DRAFT, RESAMPLE, uniform_table
from coolsd_rt.runtime.round import Decoder
from coolsd_rt.runtime.state import RoundRecord
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.parity.distance import Host, host

Decision = Literal["first token", "draft", "acceptance", "resampling", "bonus", "none found"]
ROUNDING = 2e-6  # of a float32 cumulative sum inside a graph, as probability mass


@dataclass(frozen=True)
class Difference:
    """The first place where a picture's tokens part.

    token: index in the image. margin: probability mass between the uniform and the boundary of the decision, on the
    reference's side. error: how far the two sides' values are apart there; at least the margin, or the decision could
    not have changed.
    """

    picture: int
    prompt: str
    seed: int
    token: int
    decision: Decision
    margin: float
    error: float

    @property
    def explained(self) -> bool:
        return self.decision != "none found" and self.margin <= self.error + ROUNDING

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"explained": self.explained}


@dataclass
class PictureParity:
    """Whole pictures beside each other. `equal_tokens` counts equal places, `tokens` all of them."""

    pictures: int = 0
    identical: int = 0
    tokens: int = 0
    equal_tokens: int = 0
    differences: list[Difference] = field(default_factory=list)
    codes: list[Host] = field(default_factory=list)  # the reference's, by batch

    @property
    def unexplained(self) -> int:
        return sum(not d.explained for d in self.differences)

    @property
    def largest_error(self) -> float:
        """Most that the two sides' probability masses were apart where a decision fell differently."""
        return max((d.error for d in self.differences), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        return {
            "pictures": self.pictures,
            "identical": self.identical,
            "identical_share": self.identical / max(1, self.pictures),
            "equal_tokens_share": self.equal_tokens / max(1, self.tokens),
            "unexplained": self.unexplained,
            "largest_error_at_a_difference": self.largest_error,
            "differences": [d.as_dict() for d in self.differences],
        }


def compare_pictures(
    tested: Engine,
    reference: Engine,
    jobs: Sequence[Job],
    conditioner: Conditioner,
    settings: Settings,
    into: PictureParity,
) -> None:
    """Draw one batch on both engines and add what came out to `into`."""
    sides = [drawing.open_session(e, jobs, conditioner, settings) for e in (tested, reference)]
    pair = _Pair(sides, jobs, settings)
    pair.run()
    if pair.first:  # the prefill's own distributions are not kept by the loop: step it again
        fresh = [drawing.open_session(e, jobs, conditioner, settings) for e in (tested, reference)]
        pair.explain_first(fresh)
    a, b = (d.state.codes for d in pair.decoders)
    into.pictures += len(jobs)
    into.tokens += a.size
    into.equal_tokens += int((a == b).sum())
    into.identical += int((a == b).all(1).sum())
    into.differences += sorted(pair.differences, key=lambda d: d.picture)
    into.codes.append(b.copy())


class _Pair:
    """Two decoders that take their rounds in turns; pictures are compared until they part."""

    def __init__(self, sessions: Sequence[Session], jobs: Sequence[Job], settings: Settings) -> None:
        self.jobs, self.settings, self.dims = jobs, settings, sessions[0].dims
        self.uniforms = uniform_table([job.seed for job in jobs], self.dims.tokens, settings.law.length)
        clock, forced, source = time.perf_counter, settings.forced, settings.source
        self.decoders = [
            Decoder(s, settings.law, settings.sampling, self.uniforms, forced, clock, source) for s in sessions
        ]
        self.differences: list[Difference] = []
        self.first: list[int] = []  # pictures whose first token already differs

    def run(self) -> None:
        a, b = self.decoders
        a.prefill()
        b.prefill()
        same = a.state.codes[:, 0] == b.state.codes[:, 0]
        self.first = np.flatnonzero(~same).tolist()
        while a.state.remaining.any() or b.state.remaining.any():
            start = b.state.committed - self.dims.prefix
            records = [d.round() if d.state.remaining.any() else None for d in self.decoders]
            tested, reference = records
            if tested is None or reference is None:
                continue  # only pictures that parted are left
            ends = a.state.committed == b.state.committed
            parted = same & ~(ends & (a.state.codes == b.state.codes).all(1))
            for picture in np.flatnonzero(parted).tolist():
                self._explain(picture, int(start[picture]), tested, reference)
            same &= ~parted

    def _explain(self, m: int, start: int, tested: RoundRecord, reference: RoundRecord) -> None:
        """Walk both sides' decisions of one round in the order they were taken, to the first that differs."""
        law = self.settings.law
        p = [host(r.target[m]) for r in (tested, reference)]
        q = [host(r.draft[m]) for r in (tested, reference)]
        accepted = [int(r.accepted[m]) for r in (tested, reference)]
        valid = int(reference.valid[m])
        for i in range(valid + 1):
            u = self.uniforms[m, min(start + i, self.dims.tokens - 1), i]
            if i == valid:
                self._add(m, start + i, "bonus", *_drawn_apart(p[0][i], p[1][i], u[RESAMPLE]))
                return
            tokens = [
                int(r.window[m, i]) if i < k else _drawn(side[i], u[DRAFT])
                for r, k, side in zip((tested, reference), accepted, q, strict=True)
            ]
            if tokens[0] != tokens[1]:
                self._add(m, start + i, "draft", *_drawn_apart(q[0][i], q[1][i], u[DRAFT], tokens))
                return
            x = tokens[0]
            omega = law.omegas[i]
            gap = [omega * float(pp[i, x]) - float(u[ACCEPT]) * float(qq[i, x]) for pp, qq in zip(p, q, strict=True)]
            if (accepted[0] > i) != (accepted[1] > i):
                agrees = (gap[0] > 0) != (gap[1] > 0)
                self._add(m, start + i, "acceptance" if agrees else "none found", abs(gap[1]), abs(gap[0] - gap[1]))
                return
            if accepted[1] == i:
                left = [
                    host(residual(pp[i], qq[i], omega, law.resampler)[0]) for pp, qq in zip(p, q, strict=True)
                ]  # fmt: skip
                self._add(m, start + i, "resampling", *_drawn_apart(left[0], left[1], u[RESAMPLE]))
                return

    def explain_first(self, sessions: Sequence[Session]) -> None:
        """The first token comes from the prefill."""
        s, width = self.settings.sampling, self.dims.prefix
        rows = (2 if s.guided else 1) * len(self.jobs)
        scale = np.broadcast_to(s.scales(self.dims.tokens)[:1], (len(self.jobs), 1)) if s.guided else None
        laws = []
        for side in sessions:
            ids, pos = np.zeros((rows, width), np.int64), np.zeros(rows, np.int64)
            logits = host(side.target(side.asarray(ids, "int64"), side.asarray(pos, "int64"))[0])[:, -1:]
            laws.append(process_logits(logits, scale, s.temperature, s.top_k, s.top_p)[:, 0])
        for m in self.first:
            self._add(m, 0, "first token", *_drawn_apart(laws[0][m], laws[1][m], self.uniforms[m, 0, 0, RESAMPLE]))

    def _add(self, m: int, token: int, decision: Decision, margin: float, error: float) -> None:
        if not np.isfinite(margin):
            decision, margin, error = "none found", 0.0, 0.0
        job = self.jobs[m]
        self.differences.append(Difference(job.index, job.prompt, job.seed, token, decision, margin, error))


def _drawn(weights: Host, u: float) -> int:
    return int(sample(weights, np.asarray(u, np.float32)))


def _drawn_apart(tested: Host, reference: Host, u: float, tokens: Sequence[int] | None = None) -> tuple[float, float]:
    """Margin and error of a draw that came out differently; NaN if these weights do not draw apart.

    Both draws are the inverse CDF at `u * total`. The boundary is the end of the smaller token's interval: on one side
    it lies above the uniform, on the other not. Values are masses of the weights as they are, not normalised. tokens:
    what was drawn, if it is known; a graph's own draw can differ from the weights' by rounding.
    """
    tokens = tokens or [_drawn(w, u) for w in (tested, reference)]
    if tokens[0] == tokens[1]:
        return float("nan"), float("nan")
    cdf = [np.cumsum(w, dtype=np.float64) for w in (tested, reference)]
    gap = [float(c[min(tokens)] - float(u) * c[-1]) for c in cdf]
    return abs(gap[1]), abs(gap[0] - gap[1])
