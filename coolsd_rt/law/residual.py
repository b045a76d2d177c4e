"""The distributions from which a token is drawn after a rejection, and the degenerate case.

Works on arrays of any array-API namespace. Does not know why a token was rejected, and draws nothing itself.

- optimal: G* = Norm([P - min(Q, omega * P)]_+). Source: arXiv 2601.09212. Lossless wherever omega <= 1.
- residual: Norm([P - Q]_+), classic speculative sampling. Equal to G* where omega >= 1 (the paper's Proposition 1),
  biased where omega < 1; for comparison.
- waterfill: Norm([kappa * P - min(Q, omega * P)]_+), with kappa <= 1 such that the weights sum to the probability of a
  rejection. This project's own: it has the acceptance and the total variation of G*, and the least divergence from P of
  all such distributions, KL and chi-square included; the distribution of the token stays at or above kappa * P. Equal
  to G* where omega <= 1 (kappa is 1 there).
- lantern: Norm([P - Q']_+), where Q' is Q set to zero at the k + 1 codes nearest to the rejected one, if any of its k
  nearest codes lent probability. It follows LANTERN's published code (its EAGLE-1 verification) and is biased even more
  than LANTERN's acceptance. Only for LANTERN's rules, and for comparison: the other residuals work with these rules
  too.
- target: P itself. Biased wherever P and Q differ; for comparison.
"""

from __future__ import annotations

from typing import Literal, get_args

from coolsd_rt.arrays import Array
from coolsd_rt.law.acceptance import overlap
from coolsd_rt.law.arrays import namespace

Resampler = Literal["optimal", "waterfill", "residual", "lantern", "target"]
RESAMPLERS: tuple[Resampler, ...] = get_args(Resampler)
DEVICE_RESAMPLERS: tuple[Resampler, ...] = ("optimal", "residual", "target")
"""Resamplers that the GPU kernels implement: one pass over the codes, without neighbours."""

# When P = Q the mass of the residual is 0; when they nearly agree, it is about 1e-7 of float32 rounding noise and no
# longer a distribution. P is the only fallback that never leaves P's support.
DEGENERATE_MASS = 1e-6


def residual(
    p: Array, q: Array, omega: Array, kind: Resampler, borrowed: Array = 0.0, zeroed: Array | None = None
) -> tuple[Array, Array]:
    """Return the unnormalised weights [..., V] of the residual, and a mask of degenerate rows, bool [...].

    p, q: target and draft distributions [..., V].
    omega: a number, or an array that broadcasts against p.
    borrowed: c [..., V] of LANTERN.
    zeroed: bool [..., V], true where Q counts as 0 (for the resampler lantern).

    A degenerate row, whose weights sum to less than 1e-6, gets the weights of P. A NaN stays in the weights, where
    sampling detects it.
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
    """Return kappa [..., 1], at most 1, such that sum([kappa * P - accepted]_+) = sum(P) - sum(accepted).

    p, accepted: [..., V], accepted >= 0.

    The probability of a rejection is poured like water where accepted / P is lowest. With the j lowest ratios under
    water, kappa_j = (mass + sum of their accepted) / (sum of their P); the level is the first kappa_j that does not
    reach the next ratio. Computed in float64.
    """
    xp, dtype = namespace(p, accepted), p.dtype
    p, accepted = xp.astype(p, xp.float64), xp.astype(accepted, xp.float64)
    ratio = xp.where(p > 0, accepted / xp.where(p > 0, p, xp.ones_like(p)), xp.inf)
    order = xp.argsort(ratio, axis=-1, stable=True)
    ratio, p, accepted = (xp.take_along_axis(x, order, axis=-1) for x in (ratio, p, accepted))
    mass = xp.sum(p - accepted, axis=-1, keepdims=True)
    under = xp.cumulative_sum(p, axis=-1)
    level = (mass + xp.cumulative_sum(accepted, axis=-1)) / xp.where(under > 0, under, xp.ones_like(under))
    after = xp.concat([ratio[..., 1:], xp.full_like(ratio[..., :1], xp.inf)], axis=-1)
    first = xp.argmax(xp.astype(level <= after, xp.int64), axis=-1, keepdims=True)
    level = xp.take_along_axis(level, first, axis=-1)
    return xp.astype(xp.where(level < 1, level, xp.ones_like(level)), dtype)
