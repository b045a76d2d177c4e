"""Parity of whole images: draws each image on the engine and on the reference from the same uniforms.

`drawing.draw` draws both sides: the tested engine with the loop that `generate` takes (the device's where there is
one), the reference with the host's. A batch with an image that differs is drawn again by the host's loop on both
engines in lockstep, to explain the difference. It is drawn as a whole batch, because the number of rows affects how
kernels round. Two causes can make an image differ:

- The engines. The first decision that differs is found and measured: the distance of its uniform from the boundary, and
  the difference of both sides' probabilities. It is explained if each side's decision follows from that side's
  probabilities; `parity` judges how close these have to be.
- The two loops of the tested engine. It is explained if one of the host's decisions up to that token was a near tie
  (`ties`).

Does not know the backends.

Legend as in `coolsd_rt.contract`. Window index i counts from the first undecided token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from coolsd_rt.arrays import Host
from coolsd_rt.law.residual import residual
from coolsd_rt.ops import process_logits, sample
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.decoding_loop import DecodingLoop
from coolsd_rt.runtime.interface import Engine, Session
from coolsd_rt.runtime.randomness import ACCEPT, DRAFT, RESAMPLE, uniform_table
from coolsd_rt.runtime.sampling import forced_ids
from coolsd_rt.runtime.self_decoding import DecodeRequest
from coolsd_rt.runtime.state import RoundRecord
from coolsd_rt.runtime.statistics import LoopTaken
from coolsd_rt.workflows import drawing, totals
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.parity.distance import host
from coolsd_rt.workflows.ties import NEAR, Margins

Decision = Literal["first token", "draft", "acceptance", "resampling", "bonus", "between loops", "none found"]
ROUNDING = 2e-6  # error of a float32 cumulative sum inside a graph, as probability mass


@dataclass(frozen=True)
class Difference:
    """The first token at which an image differs, between engines or ("between loops") between two loops of one engine.

    Attributes:
        token: index in the image.
        margin: probability mass between the uniform and the boundary of the decision, on the reference. Between loops:
            of the closest decision up to that token on the host's loop.
        error: difference of both sides' values there; at least `margin`, or the decision could not have changed.
            Between loops: the limit below which a decision is a near tie.
    """

    image: int
    prompt: str
    seed: int
    token: int
    decision: Decision
    margin: float
    error: float

    @property
    def explained(self) -> bool:
        """Whether rounding can have caused the difference."""
        return self.decision != "none found" and self.margin <= self.error + ROUNDING

    def as_dict(self, one: str = "image") -> dict[str, Any]:
        """Return JSON data. one: what the number of the image, or of the text, is called."""
        rest = asdict(self)
        return {one: rest.pop("image"), **rest, "explained": self.explained}


@dataclass
class ImageParity:
    """The comparison of whole images.

    Attributes:
        equal_tokens: number of tokens, of `tokens`, that are equal on both sides.
        loops: the loop that drew each batch of the tested engine.
    """

    images: int = 0
    identical: int = 0
    tokens: int = 0
    equal_tokens: int = 0
    differences: list[Difference] = field(default_factory=list)
    codes: list[Host] = field(default_factory=list)  # code ids of the reference, by batch
    loops: list[LoopTaken] = field(default_factory=list)

    @property
    def loop(self) -> LoopTaken | None:
        """The loop of the tested engine; None before the first batch."""
        return totals.one_loop(self.loops)

    @property
    def unexplained(self) -> int:
        """Number of differences without an explanation."""
        return sum(not d.explained for d in self.differences)

    @property
    def largest_error(self) -> float:
        """Largest difference of both engines' probabilities at a decision that differs."""
        return max((d.error for d in self.differences if d.decision != "between loops"), default=0.0)

    def as_dict(self, compared: Literal["images", "texts"] = "images") -> dict[str, Any]:
        """Return JSON data for the receipt."""
        return {
            "loop": self.loop,
            compared: self.images,
            "identical": self.identical,
            "tokens": self.tokens,
            "identical_share": self.identical / max(1, self.images),
            "equal_tokens_share": self.equal_tokens / max(1, self.tokens),
            "unexplained": self.unexplained,
            "largest_error_at_a_difference": self.largest_error,
            "differences": [d.as_dict(compared.removesuffix("s")) for d in self.differences],
        }


def compare_images(
    tested: Engine,
    reference: Engine,
    jobs: Sequence[Job],
    conditioner: Conditioner,
    settings: Settings,
    into: ImageParity,
) -> None:
    """Draw one batch on both engines and add the comparison to `into`."""
    drawn = drawing.draw(tested, jobs, conditioner, settings, loop="auto")
    # With a hook no image leaves the batch, so that the reference's steps are those of the replay below.
    b = drawing.draw(reference, jobs, conditioner, settings, loop="host", on_round=lambda state, record: None).codes
    limit = None if settings.bounds is None else settings.bounds.limit
    a, b = drawn.codes[:, :limit], b[:, :limit]
    same = (a == b).all(1)
    into.loops.append(drawn.loop)
    into.images += len(jobs)
    into.tokens += a.size
    into.equal_tokens += int((a == b).sum())
    into.identical += int(same.sum())
    into.codes.append(b)
    if same.all():
        return

    def fresh() -> list[Session]:
        return [drawing.open_session(engine, jobs, conditioner, settings) for engine in (tested, reference)]

    pair = _Pair(fresh(), jobs, settings, np.flatnonzero(~same).tolist())
    pair.run()
    if pair.first or (a[:, 0] != pair.codes[0][:, 0]).any():  # the prefill's P is not kept: step again
        pair.explain_first(fresh())
    pair.explain_loops(a)
    pair.explain_rest(a, b)
    into.differences += sorted(pair.differences, key=lambda d: d.image)


class _Pair:
    """Runs the host's loop on two engines in lockstep; compares images until they differ."""

    def __init__(
        self, sessions: Sequence[Session], jobs: Sequence[Job], settings: Settings, wanted: Sequence[int]
    ) -> None:
        """sessions: of the tested engine and of the reference. wanted: indices of the images to explain."""
        self.jobs, self.settings, self.dims, self._wanted = jobs, settings, sessions[0].dims, set(wanted)
        self._explained: set[int] = set()
        self.uniforms = uniform_table([job.seed for job in jobs], self.dims.tokens, settings.law.length)
        forced = forced_ids(settings.forced, self.dims.tokens, self.dims.vocab)
        request = DecodeRequest(
            settings.law, settings.sampling, self.uniforms, forced, settings.drafter,
            extent=drawing.extent_of(jobs, settings), lookup=drawing.lookup_of(jobs, settings),
        )  # fmt: skip
        self.decoders = [DecodingLoop(s, request) for s in sessions]
        self._limit = None if settings.bounds is None else settings.bounds.limit
        self._margins = Margins(settings.law, settings.sampling, self.uniforms)
        self.differences: list[Difference] = []
        self.first: list[int] = []  # images whose first token differs

    @property
    def codes(self) -> tuple[Host, Host]:
        """Code ids int64 [M, N] of the tested engine and of the reference."""
        return self.decoders[0].state.codes, self.decoders[1].state.codes

    def run(self) -> None:
        """Run all rounds on both engines."""
        a, b = self.decoders
        a.prefill()
        b.prefill()
        same = a.state.codes[:, 0] == b.state.codes[:, 0]
        self.first = np.flatnonzero(~same).tolist()
        while a.state.remaining.any() or b.state.remaining.any():
            start = b.state.committed - self.dims.prefix
            records = [d.round() if d.state.remaining.any() else None for d in self.decoders]
            tested, reference = records
            if tested is not None:
                self._margins(a.state, tested)
            if tested is None or reference is None:
                continue  # only images that differ are left
            ends = a.state.committed == b.state.committed
            parted = same & ~(ends & (a.state.codes == b.state.codes).all(1))
            for image in np.flatnonzero(parted).tolist():
                self._explain(image, int(start[image]), tested, reference)
            same &= ~parted

    def _explain(self, m: int, start: int, tested: RoundRecord, reference: RoundRecord) -> None:
        """Replay both sides' decisions of one round in order, up to the first that differs."""
        law = self.settings.law
        p = [host(r.target[m]) for r in (tested, reference)]
        q = [host(r.draft[m]) for r in (tested, reference)]
        accepted = [int(r.accepted[m]) for r in (tested, reference)]
        num_drafts = int(reference.num_drafts[m])
        for i in range(num_drafts + 1):
            u = self.uniforms[m, min(start + i, self.dims.tokens - 1), i]
            if i == num_drafts:
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
                left = [host(residual(pp[i], qq[i], omega, law.resampler)[0]) for pp, qq in zip(p, q, strict=True)]
                self._add(m, start + i, "resampling", *_drawn_apart(left[0], left[1], u[RESAMPLE]))
                return

    def explain_first(self, sessions: Sequence[Session]) -> None:
        """Explain first tokens, which the prefill draws: differences between engines, and margins on the tested one."""
        s = self.settings.sampling
        first = max(side.dims.first(job.encoded.start for job in self.jobs) for side in sessions)
        rows = (2 if s.guided else 1) * len(self.jobs)
        scale = np.broadcast_to(s.scales(self.dims.tokens)[:1], (len(self.jobs), 1)) if s.guided else None
        probs = []
        for side in sessions:
            ids, pos = np.zeros((rows, self.dims.prefix - first), np.int64), np.full(rows, first)
            logits = host(side.target(side.asarray(ids, "int64"), side.asarray(pos, "int64"))[0])[:, -1:]
            probs.append(process_logits(logits, scale, s.temperature, s.top_k, s.top_p)[:, 0])
        for m in range(len(self.jobs)):
            self._margins.first_token(m, probs[0][m])
        for m in self.first:
            self._add(m, 0, "first token", *_drawn_apart(probs[0][m], probs[1][m], self.uniforms[m, 0, 0, RESAMPLE]))

    def explain_loops(self, drawn: Host) -> None:
        """Explain images int64 [M, N] that the tested engine's loop and the host's loop drew differently."""
        for parting in self._margins.partings(self.codes[0][:, : self._limit], drawn):
            self._add(parting.image, parting.token, "between loops", parting.margin, NEAR)

    def explain_rest(self, tested: Host, reference: Host) -> None:
        """Record images int64 [M, N] that differ although the host's loop draws them equal: unexplained."""
        for m in sorted(self._wanted - self._explained):
            self._add(m, int((tested[m] != reference[m]).argmax()), "none found", 0.0, 0.0)

    def _add(self, m: int, token: int, decision: Decision, margin: float, error: float) -> None:
        if m not in self._wanted:
            return
        if not np.isfinite(margin):
            decision, margin, error = "none found", 0.0, 0.0
        self._explained.add(m)
        job = self.jobs[m]
        self.differences.append(Difference(job.index, job.prompt, job.seed, token, decision, margin, error))


def _drawn(weights: Host, u: float) -> int:
    return int(sample(weights, np.asarray(u, np.float32)))


def _drawn_apart(tested: Host, reference: Host, u: float, tokens: Sequence[int] | None = None) -> tuple[float, float]:
    """Return margin and error of a draw that differs between the sides; NaN if the weights do not explain it.

    Both draws are the inverse CDF at `u * total`. The boundary is the end of the smaller token's interval: on one side
    it is above the uniform, on the other it is not. Values are masses of the weights as given, not normalised. tokens:
    the drawn tokens, if known; the draw inside a graph can differ from the weights' by rounding.
    """
    tokens = tokens or [_drawn(w, u) for w in (tested, reference)]
    if tokens[0] == tokens[1]:
        return float("nan"), float("nan")
    cdf = [np.cumsum(w, dtype=np.float64) for w in (tested, reference)]
    gap = [float(c[min(tokens)] - float(u) * c[-1]) for c in cdf]
    return abs(gap[1]), abs(gap[0] - gap[1])
