"""The distribution of the token at one draft position: accepted drafts, and the residual after a rejection.

For proofs and expectations: the loop draws tokens and never forms these distributions. Knows NumPy arrays. Does not
know contexts or rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from coolsd_rt.arrays import Floats64
from coolsd_rt.law.acceptance import overlap
from coolsd_rt.law.residual import DEGENERATE_MASS, residual
from coolsd_rt.law.rules import Law

Judge = Callable[[Floats64, Floats64, int], tuple[Any, Any]]
"""P, Q, draft position (from 0) -> the probabilities [V] that a code is accepted there, or drawn after a rejection."""


def position_law(p: Any, q: Any, law: Law, i: int) -> tuple[Floats64, Floats64]:
    """Return the probabilities that each code at draft position i is drafted and accepted, or drawn after a rejection.

    i: position, from 0.
    p, q: P and Q, [..., V].

    Both results are float64 [..., V]. Their sum is the distribution of the token at this position.
    """
    omega, tolerance = law.omegas[i], law.tolerance
    given = np.asarray(p)  # LANTERN compares in the precision of P
    borrowed = 0.0 if tolerance is None else tolerance.everywhere(given)
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    accepted = np.asarray(overlap(p, q, omega, borrowed) if law.rates is None else law.rates[i] * q, np.float64)
    if law.resampler != "lantern" or tolerance is None:
        rejected = np.maximum(0.0, 1.0 - accepted.sum(-1, keepdims=True))
        return accepted, rejected * _normal(residual(p, q, omega, law.resampler, borrowed)[0])
    near = np.asarray(tolerance.near)[:, : tolerance.columns]
    arrays = (a.reshape(-1, p.shape[-1]) for a in (p, q, q - accepted, tolerance.lends(given)))
    after = [_after_lantern(near, *row) for row in zip(*arrays, strict=True)]
    return accepted, np.asarray(after, np.float64).reshape(p.shape)


def _after_lantern(near: Any, p: Any, q: Any, rejected: Any, lends: Any) -> Floats64:
    """Return the probabilities [V] to draw each code after a rejection, under LANTERN's own residual.

    near: the columns [V, k] of the table. rejected: probability that each code is drafted and rejected. lends: of
    `Tolerance.lends`.

    The residual depends on the rejected code x: its weights are [P - Q]_+, and P at the codes near x. So the sum over
    all x takes V * k terms: each x adds its share of [P - Q]_+, and of min(P, Q) at the codes near it.
    """
    left = np.maximum(p - q, 0.0)
    added = p - left
    x = np.flatnonzero(rejected > 0)
    zeroed, lending = near[x], lends[x]
    total = left.sum() + added[zeroed].sum(-1) * lending
    empty = total < DEGENERATE_MASS
    share = np.divide(rejected[x], total, out=np.zeros(len(x)), where=~empty)
    by_code = np.bincount(zeroed.ravel(), np.repeat(share * lending, near.shape[1]), len(p))
    return np.asarray(left * share.sum() + added * by_code + _normal(p) * rejected[x][empty].sum(), np.float64)


def _normal(weights: Any) -> Floats64:
    weights = np.asarray(weights, np.float64)
    return np.asarray(weights / weights.sum(-1, keepdims=True), np.float64)
