"""Verify a window of drafts: how many are accepted, and the token that ends the round.

Processes all rows and positions at once. Knows the law. Does not know models, caches or positions in an image.

Legend: M images, L draft length, V codes. Window index i = 0..L; P[:, i] is the target's distribution of the token at
i.
"""

from __future__ import annotations

from typing import NamedTuple

from coolsd_rt.arrays import Array
from coolsd_rt.errors import CoolsdError
from coolsd_rt.law.acceptance import accepts
from coolsd_rt.law.arrays import namespace
from coolsd_rt.law.residual import Resampler, residual
from coolsd_rt.law.tolerance import Tolerance
from coolsd_rt.ops.sample import sample


class Verdict(NamedTuple):
    """The outcome of a round for each image."""

    accepted: Array  # int64 [M]: drafts accepted, 0..num_drafts
    token: Array  # int64 [M]: the resampled token (accepted < num_drafts) or the bonus token (accepted == num_drafts)
    degenerate: Array  # bool [M]: rejected with a degenerate residual; the token is drawn from P


def verify(
    target: Array,
    draft: Array,
    tokens: Array,
    num_drafts: Array,
    omegas: Array,
    u_accept: Array,
    u_resample: Array,
    resampler: Resampler,
    forced: Array | None = None,
    tolerance: Tolerance | None = None,
    rates: Array | None = None,
) -> Verdict:
    """Accept each row's drafts up to its first rejection, then draw the token that ends the round.

    target: P [M, L+1, V].
    draft: Q [M, L, V], the same tensor that the tokens were drawn from.
    tokens: int64 [M, L].
    num_drafts: int64 [M], drafts that count (fewer at the image's end).
    omegas: float64 [L], or [M, L] where images differ.
    u_accept, u_resample: [M, L] and [M, L+1], uniforms in [0, 1) by window index.
    forced: bool [M, L], positions whose token is fixed (P = Q = a point mass): accepted whatever omega is.
    tolerance: LANTERN's relaxation, with neighbours of the same array type.
    rates: float64 [L], acceptance rates independent of P and Q (`synthetic`).

    Raises CoolsdError on NaN, or if a drafted token has Q = 0: it was not drawn from this Q. Source: arXiv 2601.09212,
    the relaxed round.
    """
    xp = namespace(target)
    images, length = tokens.shape
    if length == 0:
        return Verdict(num_drafts, sample(target[:, 0], u_resample[:, 0]), num_drafts > 0)
    rows, index = (xp.arange(n, dtype=xp.int64, device=num_drafts.device) for n in (images, length))
    at = (rows[:, None], index, tokens)
    p, q = xp.astype(target[at], xp.float64), xp.astype(draft[at], xp.float64)
    evaluated = index < num_drafts[:, None]
    check_drafted(p, q, evaluated)
    u = xp.astype(u_accept, xp.float64)
    borrowed = 0.0 if tolerance is None else tolerance.borrowed(target[:, :length], tokens)
    is_accepted = accepts(u, p, q, omegas, borrowed) if rates is None else u < rates
    is_accepted = (is_accepted if forced is None else is_accepted | forced) & evaluated
    accepted = xp.sum(xp.cumulative_prod(xp.astype(is_accepted, xp.int64), axis=1), axis=1)

    weights = target[rows, accepted]
    rejected = accepted < num_drafts
    degenerate = rejected
    if bool(xp.any(rejected)):
        first = xp.where(rejected, accepted, 0)
        omega = omegas[first] if omegas.ndim == 1 else omegas[rows, first]
        omega = xp.astype(omega, weights.dtype)[:, None]
        left, empty = _after(weights, draft[rows, first], omega, resampler, tolerance, tokens[rows, first])
        degenerate = rejected & empty
        weights = xp.where(rejected[:, None], left, weights)
    return Verdict(accepted, sample(weights, u_resample[rows, accepted]), degenerate)


def _after(
    p: Array, q: Array, omega: Array, resampler: Resampler, tolerance: Tolerance | None, tokens: Array
) -> tuple[Array, Array]:
    """Return the residual weights of each row [M, V] and which rows are degenerate.

    tokens: int64 [M], the rejected drafts.
    """
    if tolerance is None:
        return residual(p, q, omega, resampler)
    if resampler == "lantern":
        return residual(p, q, omega, resampler, zeroed=tolerance.zeroed(p, tokens))
    if resampler == "waterfill":
        return residual(p, q, omega, resampler, tolerance.everywhere(p))
    # P + c >= P, so G* is the classic residual (Proposition 1), and c of all codes is not needed.
    return residual(p, q, omega, "residual" if resampler == "optimal" else resampler)


def check_drafted(p: Array, q: Array, evaluated: Array) -> None:
    """Raise CoolsdError unless each evaluated draft has P >= 0 and Q > 0, both [M, L] at the tokens."""
    xp = namespace(p)
    sound = ((q > 0) & (p >= 0)) | ~evaluated
    if not bool(xp.all(sound)):
        raise CoolsdError(
            "a drafted token cannot be verified",
            expected="P >= 0 and Q > 0 at each drafted token",
            found=f"P {float(p[~sound][0])}, Q {float(q[~sound][0])}",
            fix="the models' logits hold NaN, or the drafts were not drawn from this Q",
        )
