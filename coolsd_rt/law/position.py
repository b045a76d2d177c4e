"""One draft position: what is drafted and accepted, and what a rejection puts in its place.

For proofs and expectations.

The loop never forms these laws; it draws. Knows arrays of NumPy. Does not know contexts or rounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coolsd_rt.arrays import Floats64
from coolsd_rt.law.acceptance import overlap
from coolsd_rt.law.residual import residual
from coolsd_rt.law.rules import Law


def position_law(p: Any, q: Any, law: Law, i: int) -> tuple[Floats64, Floats64]:
    """Draft position i (from 0): probabilities to draft and keep a code, and to get it after a rejection.

    p, q: [..., V]. Both results are float64 [..., V]; together they are the law of the position's token, sum 1.
    """
    omega, tolerance = law.omegas[i], law.tolerance
    given = np.asarray(p)  # LANTERN compares in P's own precision
    borrowed = 0.0 if tolerance is None else tolerance.everywhere(given)
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    accepted = np.asarray(overlap(p, q, omega, borrowed) if law.rates is None else law.rates[i] * q, np.float64)
    if law.resampler != "lantern" or tolerance is None:
        rejected = np.maximum(0.0, 1.0 - accepted.sum(-1, keepdims=True))
        return accepted, rejected * _normal(residual(p, q, omega, law.resampler, borrowed)[0])
    after = np.zeros_like(p)
    for x in np.flatnonzero(
        (q > accepted).reshape(-1, q.shape[-1]).any(0)
    ):  # it depends on the token that was rejected
        zeroed = tolerance.zeroed(given, np.full(p.shape[:-1], x))
        after += (q[..., [x]] - accepted[..., [x]]) * _normal(residual(p, q, omega, "lantern", zeroed=zeroed)[0])
    return accepted, after


def _normal(weights: Any) -> Floats64:
    weights = np.asarray(weights, np.float64)
    return np.asarray(weights / weights.sum(-1, keepdims=True), np.float64)
