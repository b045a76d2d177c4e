"""The distribution of the token at one draft position: accepted drafts, and the residual after a rejection.

For proofs and expectations: the loop draws tokens and never forms these distributions. Knows NumPy arrays. Does not
know contexts or rounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coolsd_rt.arrays import Floats64
from coolsd_rt.law.acceptance import overlap
from coolsd_rt.law.residual import residual
from coolsd_rt.law.rules import Law


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
    after = np.zeros_like(p)
    for x in np.flatnonzero(
        (q > accepted).reshape(-1, q.shape[-1]).any(0)
    ):  # this residual depends on the rejected token
        zeroed = tolerance.zeroed(given, np.full(p.shape[:-1], x))
        after += (q[..., [x]] - accepted[..., [x]]) * _normal(residual(p, q, omega, "lantern", zeroed=zeroed)[0])
    return accepted, after


def _normal(weights: Any) -> Floats64:
    weights = np.asarray(weights, np.float64)
    return np.asarray(weights / weights.sum(-1, keepdims=True), np.float64)
