"""What is drawn after a rejection: the resampling laws, and their degenerate case.

Works on arrays of any array-API namespace. Does not know how a rejection came about, and draws nothing itself.

- optimal: G* = Norm([P - min(Q, omega * P)]_+). Source: arXiv 2601.09212. Lossless wherever omega <= 1.
- residual: Norm([P - Q]_+), classic speculative sampling. Equal to G* where omega >= 1 (the paper's Proposition 1),
  biased where omega < 1; kept for comparison.
- waterfill: Norm([kappa * P - min(Q, omega * P)]_+), kappa <= 1 such that the weights have the rejection's mass. Ours:
  the same acceptance and the same distance to P as G*, and the least divergence from P of all such laws, KL and
  chi-square included; the law of the step stays at or above kappa * P. G* itself where omega <= 1 (kappa is 1 there).
- lantern: Norm([P - Q']_+), Q' = Q with zeros at the k + 1 codes nearest to the rejected one, if any of its k nearest
  lent: LANTERN's published code (its EAGLE-1 verification), biased even more than its acceptance is. Only beside its
  rules, and for comparison: the other laws go with them too.
- target: P itself. Biased wherever P and Q differ; kept for comparison.
"""

from __future__ import annotations

from typing import Literal, get_args

from coolsd_rt.arrays import Array
from coolsd_rt.law.acceptance import overlap
from coolsd_rt.law.arrays import namespace

Resampler = Literal["optimal", "waterfill", "residual", "lantern", "target"]
RESAMPLERS: tuple[Resampler, ...] = get_args(Resampler)
DEVICE_RESAMPLERS: tuple[Resampler, ...] = ("optimal", "residual", "target")
"""Those that the kernels have: one pass over the codes, and no neighbours."""

# When P = Q the residual's mass is 0, and about 1e-7 of float32 noise when they nearly agree: what is left is not a
# distribution any more. P is the only fallback that never leaves P's support.
DEGENERATE_MASS = 1e-6


def residual(
    p: Array, q: Array, omega: Array, kind: Resampler, borrowed: Array = 0.0, zeroed: Array | None = None
) -> tuple[Array, Array]:
    """Weights [..., V] of the law after a rejection, not normalised, and which rows were degenerate, bool [...].

    p, q: target and draft distributions [..., V]. omega: a number, or an array that broadcasts against p.
    borrowed: c [..., V] of LANTERN. zeroed: bool [..., V], where Q counts as 0 (for the resampler lantern).
    A degenerate row (mass under 1e-6) has the weights of P. A NaN survives into the weights, where sampling finds it.
    """
    xp = namespace(p, q)
    if kind == "target":
        return p, xp.zeros(p.shape[:-1], dtype=xp.bool, device=p.device)
    if kind in ("residual", "lantern"):
        accepted = q if zeroed is None else q * xp.astype(~zeroed, q.dtype)
    else:
        accepted = overlap(p, q, omega, borrowed)
    weights = p - accepted if kind != "waterfill" else p * water_level(p, accepted) - accepted
    weights = weights * (weights > 0)
    degenerate = xp.sum(weights, axis=-1) < DEGENERATE_MASS
    if bool(xp.any(degenerate)):
        weights = xp.where(degenerate[..., None], p, weights)
    return weights, degenerate


def water_level(p: Array, accepted: Array) -> Array:
    """kappa [..., 1]: sum([kappa * P - accepted]_+) = sum(P) - sum(accepted), at most 1. p, accepted: [..., V],
    accepted >= 0.

    The mass that a rejection has to place is poured where accepted / P is lowest. With the j lowest ratios under water,
    kappa_j = (mass + their accepted) / (their P); the level is the first that does not reach the next ratio. In
    float64.
    """
    xp, dtype = namespace(p, accepted), p.dtype
    p, accepted = xp.astype(p, xp.float64), xp.astype(accepted, xp.float64)
    ratio = xp.where(p > 0, accepted / xp.where(p > 0, p, xp.ones_like(p)), xp.inf)
    order = xp.argsort(ratio, axis=-1)
    ratio, p, accepted = (xp.take_along_axis(x, order, axis=-1) for x in (ratio, p, accepted))
    mass = xp.sum(p - accepted, axis=-1, keepdims=True)
    under = xp.cumulative_sum(p, axis=-1)
    level = (mass + xp.cumulative_sum(accepted, axis=-1)) / xp.where(under > 0, under, xp.ones_like(under))
    after = xp.concat([ratio[..., 1:], xp.full_like(ratio[..., :1], xp.inf)], axis=-1)
    first = xp.argmax(xp.astype(level <= after, xp.int64), axis=-1, keepdims=True)
    level = xp.take_along_axis(level, first, axis=-1)
    return xp.astype(xp.where(level < 1, level, xp.ones_like(level)), dtype)
