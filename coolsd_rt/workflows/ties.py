"""How near each decision of the host's loop was to falling the other way: where two loops part, was it a near tie?

Two loops over one engine take the same decisions from the same uniforms, but kernels for another number of positions
round otherwise, and a decision whose uniform stands at its boundary may fall either way. Knows the law's decisions.
Does not know backends, nor who drew the other side.

Legend: M images, N image tokens, V codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coolsd_rt.arrays import Host
from coolsd_rt.law import Law
from coolsd_rt.law.residual import residual
from coolsd_rt.runtime.randomness import ACCEPT, DRAFT, RESAMPLE
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.state import RoundRecord, State
from coolsd_rt.workflows.parity.distance import host

NEAR = 1e-4  # probability mass: what float32 networks are apart by, and guidance makes more of


@dataclass(frozen=True)
class Parting:
    """An image whose tokens part, first at `token`; margin: of the nearest decision up to there, as probability."""

    image: int
    token: int
    margin: float

    @property
    def near(self) -> bool:
        return self.margin <= NEAR


class Margins:
    """An `on_round` hook of the host's loop: the margin of every decision. Of the first token's none, unless told."""

    def __init__(self, law: Law, sampling: Sampling, uniforms: Host) -> None:
        """uniforms: [M, N, L + 1, 3], those of the loop."""
        self._law, self._sampling, self._uniforms = law, sampling, uniforms
        self._closest = np.full(uniforms.shape[:2], np.inf)  # [M, N] of the decisions on each token

    def first_token(self, image: int, p: Host) -> None:
        """The P [V] that an image's first token was drawn from: the prefill belongs to no round."""
        self._closest[image, 0] = _edge(p, self._uniforms[image, 0, 0, RESAMPLE])

    def __call__(self, state: State, record: RoundRecord) -> None:
        """After a commit."""
        p, q = host(record.target), host(record.draft)
        starts = state.committed - state.prefix - record.accepted - 1
        for m in np.flatnonzero(record.active).tolist():
            for i, margin in enumerate(self._margins(m, int(starts[m]), record, p[m], q[m])):
                at = int(starts[m]) + i
                self._closest[m, at] = min(self._closest[m, at], margin)

    def partings(self, mine: Host, others: Host) -> list[Parting]:
        """Images int64 [M, N] of the loop beside the same drawn by another: one for each that is not the same."""
        found = []
        for m in np.flatnonzero((others != mine).any(1)).tolist():
            token = int((others[m] != mine[m]).argmax())
            found.append(Parting(m, token, float(self._closest[m, : token + 1].min())))
        return found

    def _margins(self, m: int, start: int, record: RoundRecord, p: Host, q: Host) -> list[float]:
        """Of the decisions on the round's tokens, up to the one that ends it."""
        accepted, num_drafts = int(record.accepted[m]), int(record.num_drafts[m])
        found: list[float] = []
        for i in range(accepted + 1):
            u = self._uniforms[m, min(start + i, self._uniforms.shape[1] - 1), i]
            near = [np.inf]
            if i < num_drafts:
                near += [_edge(q[i], u[DRAFT]), self._chance(i, int(record.drafts[m, i]), u[ACCEPT], p[i], q[i])]
                near.append(abs(float(q[i].max()) - self._sampling.draft_confidence))
            if i == accepted:
                omega = self._law.omegas[i] if i < num_drafts else 1.0
                left = p[i] if i == num_drafts else host(residual(p[i], q[i], omega, self._law.resampler)[0])
                near += [_edge(left, u[RESAMPLE]), abs(float(p[i].max()) - self._sampling.confidence)]
            found.append(0.0 if np.isnan(near).any() else float(min(near)))
        return found

    def _chance(self, i: int, token: int, u: float, p: Host, q: Host) -> float:
        """How far an acceptance was from falling the other way."""
        if self._law.rates is not None:
            return abs(float(u) - self._law.rates[i])
        return abs(self._law.omegas[i] * float(p[token]) - float(u) * float(q[token]))


def _edge(weights: Host, u: float) -> float:
    """How far a draw was from another token: the mass between its uniform and the nearer end of its interval."""
    cdf = np.cumsum(weights, dtype=np.float64)
    reached = float(u) * cdf[-1]
    ends = np.concatenate([[0.0], cdf])
    inner = ends[(ends > 0) & (ends < cdf[-1])]  # a point mass has no other token
    return float(np.abs(inner - reached).min(initial=np.inf) / max(float(cdf[-1]), 1e-30))
