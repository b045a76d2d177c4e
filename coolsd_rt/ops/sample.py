"""Draw one token from weights: with a uniform by inverse CDF, or with a noise of each code as the winner of a race.

Knows arrays. Does not know where the random numbers come from. Legend: V codes.
"""

from __future__ import annotations

from coolsd_rt.arrays import Array
from coolsd_rt.errors import CoolsdError
from coolsd_rt.law.arrays import namespace

# The largest double below 1. For any u up to it, u * total rounds to less than total, so the index below stays valid
# and never lies behind the last code of positive weight.
_BELOW_ONE = 1.0 - 2.0**-53


def sample(weights: Array, u: Array) -> Array:
    """Draw token ids int64 [...] from weights [..., V] (>= 0, any positive total) with uniforms u [...] in [0, 1).

    Returns the smallest index whose cumulative weight is greater than u * total. The comparison is strict, so a code of
    weight 0 is never drawn, neither at u = 0 nor at the end. Accumulates in float64: a sequential sum over 65536 codes
    drifts in float32 and stalls in half precision.

    Raises CoolsdError if a total is zero, infinite or NaN: the model gave no distribution.
    """
    xp = namespace(weights)
    cdf = xp.cumulative_sum(weights, axis=-1, dtype=xp.float64)
    total = cdf[..., -1]
    _check(total)
    u = xp.astype(u, xp.float64)
    reached = xp.where(u < _BELOW_ONE, u, _BELOW_ONE) * total
    return xp.astype(xp.count_nonzero(cdf <= reached[..., None], axis=-1), xp.int64)


def race(weights: Array, noise: Array) -> Array:
    """Draw token ids int64 [...] from weights [..., V], as `sample`, with exponential noise float64 [..., V] above 0.

    Returns argmin(noise / weights): with the same noise, tokens of similar weights are often the same (Gumbel coupling;
    argmax(log weights + Gumbel noise) in other words). Raises as `sample`.
    """
    xp = namespace(weights)
    weights = xp.astype(weights, xp.float64)
    _check(xp.sum(weights, axis=-1))
    runs = weights > 0
    arrival = xp.where(runs, noise / xp.where(runs, weights, 1.0), xp.inf)
    return xp.argmin(arrival, axis=-1)


def _check(total: Array) -> None:
    """Raise CoolsdError unless all totals [...] of weights are finite and positive."""
    xp = namespace(total)
    sound = (total > 0) & (total < xp.inf)
    if not bool(xp.all(sound)):
        raise CoolsdError(
            "a distribution cannot be sampled",
            expected="a finite, positive total",
            found=str(float(total[~sound][0])),
            fix="the model's logits hold NaN or infinity, or nothing is left after filtering",
        )
