"""One token from weights and a uniform, by inverse CDF.

Does not know where the uniform comes from. Legend: V codes.
"""

from __future__ import annotations

from coolsd_rt.arrays import Array
from coolsd_rt.errors import CoolsdError
from coolsd_rt.law.arrays import namespace

# The largest double under 1. For any u up to it, u * total rounds to less than total, so the index below stays a
# valid one and never lands behind the last code that has any weight.
_BELOW_ONE = 1.0 - 2.0**-53


def sample(weights: Array, u: Array) -> Array:
    """Token ids int64 [...] drawn from weights [..., V] (>= 0, any positive total) with uniforms u [...] in [0, 1).

    The smallest index whose cumulative weight passes u * total. It passes it strictly, so a code of weight 0 is never
    drawn, at u = 0 and at the end included. Accumulates in float64: a sequential sum over 65536 codes drifts in
    float32 and stalls in half precision.

    Raises CoolsdError when a total is zero, infinite or NaN: the model gave no distribution.
    """
    xp = namespace(weights)
    cdf = xp.cumulative_sum(weights, axis=-1, dtype=xp.float64)
    total = cdf[..., -1]
    sound = (total > 0) & (total < xp.inf)
    if not bool(xp.all(sound)):
        raise CoolsdError(
            "a distribution cannot be sampled",
            expected="a finite, positive total",
            found=str(float(total[~sound][0])),
            fix="the model's logits hold NaN or infinity, or nothing is left after filtering",
        )
    u = xp.astype(u, xp.float64)
    reached = xp.where(u < _BELOW_ONE, u, _BELOW_ONE) * total
    return xp.astype(xp.count_nonzero(cdf <= reached[..., None], axis=-1), xp.int64)
