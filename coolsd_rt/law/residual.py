"""What is drawn after a rejection: the resampling laws, and their degenerate case.

Works on arrays of any array-API namespace. Does not know how a rejection came about, and draws nothing itself.

- optimal: G* = Norm([P - min(Q, omega * P)]_+). Source: arXiv 2601.09212. Lossless wherever omega <= 1.
- residual: Norm([P - Q]_+), classic speculative sampling. Equal to G* where omega >= 1 (the paper's Proposition 1),
  biased where omega < 1; kept for comparison.
- target: P itself. Biased wherever P and Q differ; kept for comparison.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from array_api_compat import array_namespace

from coolsd_rt.law.acceptance import overlap

Array = Any
Resampler = Literal["optimal", "residual", "target"]
RESAMPLERS: tuple[Resampler, ...] = get_args(Resampler)

# When P = Q the residual's mass is 0, and about 1e-7 of float32 noise when they nearly agree: what is left is not a
# distribution any more. P is the only fallback that never leaves P's support.
DEGENERATE_MASS = 1e-6


def residual(p: Array, q: Array, omega: Array, kind: Resampler) -> tuple[Array, Array]:
    """Weights [..., V] of the law after a rejection, not normalised, and which rows were degenerate, bool [...].

    p, q: target and draft distributions [..., V]. omega: a number, or an array that broadcasts against p.
    A degenerate row (mass under 1e-6) has the weights of P. A NaN survives into the weights, where sampling finds it.
    """
    xp = array_namespace(p, q)
    if kind == "target":
        return p, xp.zeros(p.shape[:-1], dtype=xp.bool, device=p.device)
    weights = p - (overlap(p, q, omega) if kind == "optimal" else q)
    weights = weights * (weights > 0)
    degenerate = xp.sum(weights, axis=-1) < DEGENERATE_MASS
    if bool(xp.any(degenerate)):
        weights = xp.where(degenerate[..., None], p, weights)
    return weights, degenerate
