"""Measures how close each decision of the host's loop was to the opposite outcome.

This explains differences between two loops on one engine. They take the same decisions from the same uniforms, but
kernels for another number of positions round differently, and a decision whose uniform is at its boundary may change.
Knows the decisions of the law. Does not know backends or which loop drew the other image.

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

NEAR = 1e-4  # probability mass: differences of float32 networks after guidance amplifies them


@dataclass(frozen=True)
class Parting:
    """The first `token` at which an image differs. margin: of the closest decision up to there, as probability mass."""

    image: int
    token: int
    margin: float

    @property
    def near(self) -> bool:
        """Whether a decision up to that token was a near tie, which rounding can change."""
        return self.margin <= NEAR


class Margins:
    """An `on_round` hook of the host's loop that records the margin of every decision.

    `first_token` adds the prefill's.
    """

    def __init__(self, law: Law, sampling: Sampling, uniforms: Host) -> None:
        """uniforms: [M, N, L + 1, 3], those of the loop."""
        self._law, self._sampling, self._uniforms = law, sampling, uniforms
        self._closest = np.full(uniforms.shape[:2], np.inf)  # [M, N] smallest margin of the decisions on each token

    def first_token(self, image: int, p: Host) -> None:
        """Record the decision on an image's first token, drawn from P [V] by the prefill, which belongs to no round."""
        self._closest[image, 0] = _edge(p, self._uniforms[image, 0, 0, RESAMPLE])

    def __call__(self, state: State, record: RoundRecord) -> None:
        """Record a round after its commit."""
        p, q = host(record.target), host(record.draft)
        starts = state.committed - state.prefix - record.accepted - 1
        for m in np.flatnonzero(record.active).tolist():
            for i, margin in enumerate(self._margins(m, int(starts[m]), record, p[m], q[m])):
                at = int(starts[m]) + i
                self._closest[m, at] = min(self._closest[m, at], margin)

    def partings(self, mine: Host, others: Host) -> list[Parting]:
        """Compare the loop's images int64 [M, N] with those of another loop: one entry per image that differs."""
        found = []
        for m in np.flatnonzero((others != mine).any(1)).tolist():
            token = int((others[m] != mine[m]).argmax())
            found.append(Parting(m, token, float(self._closest[m, : token + 1].min())))
        return found

    def _margins(self, m: int, start: int, record: RoundRecord, p: Host, q: Host) -> list[float]:
        """Return the margins of the decisions on the round's tokens, up to the one that ends the round."""
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
        """Return the distance of an acceptance test from its boundary, as probability."""
        if self._law.rates is not None:
            return abs(float(u) - self._law.rates[i])
        return abs(self._law.omegas[i] * float(p[token]) - float(u) * float(q[token]))


def _edge(weights: Host, u: float) -> float:
    """Return the mass between a draw's uniform and the closer end of its token's interval."""
    cdf = np.cumsum(weights, dtype=np.float64)
    reached = float(u) * cdf[-1]
    ends = np.concatenate([[0.0], cdf])
    inner = ends[(ends > 0) & (ends < cdf[-1])]  # a point mass has no inner boundary
    return float(np.abs(inner - reached).min(initial=np.inf) / max(float(cdf[-1]), 1e-30))
