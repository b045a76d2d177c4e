"""The acceptance rule of a draft token: f = min(1, omega * P / Q).

Works on arrays of any array-API namespace and on plain floats. Does not know who drew the token or the uniform. Source:
arXiv 2601.09212, the relaxed acceptance rule; omega = 1 is classic speculative sampling.
"""

from __future__ import annotations

from coolsd_rt.arrays import Array
from coolsd_rt.law.arrays import namespace


def accepts(u: Array, p: Array, q: Array, omega: Array, borrowed: Array = 0.0) -> Array:
    """Return whether each draft token is accepted: u * Q(x) < omega * P(x) + borrowed(x), elementwise.

    u: uniforms in [0, 1).
    p, q: P and Q at the drafted token.
    borrowed: c(x) of LANTERN (`coolsd_rt.law.tolerance`), 0 without it.

    The comparison is strict and has no division: P(x) = 0 always rejects, even at u = 0, and Q(x) is never a divisor.
    In float64 the product of a float32 probability and a 24-bit uniform is exact. A NaN compares false and would read
    as a rejection, so the caller checks p and q first.
    """
    return u * q < omega * p + borrowed


def overlap(p: Array, q: Array, omega: Array, borrowed: Array = 0.0) -> Array:
    """Return Q * f = min(Q, omega * P + c), [..., V]: the probability that x is drafted and accepted.

    The sum over V is the acceptance rate.
    """
    return namespace(p, q).minimum(q, omega * p + borrowed)


def acceptance(p: Array, q: Array, omega: Array, borrowed: Array = 0.0) -> Array:
    """Return f = min(1, (omega * P + c) / Q), [..., V]: the probability that x is accepted once it is drafted.

    For proofs; the loop uses `accepts`. Where Q = 0 the token is never drafted, and the limit is returned: 1 where
    omega * P + c > 0, else 0.
    """
    xp = namespace(p, q)
    drafted, most = q > 0, omega * p + borrowed
    ratio = most / xp.where(drafted, q, xp.ones_like(q))
    capped = xp.where(ratio < 1, ratio, xp.ones_like(ratio))
    return xp.where(drafted, capped, xp.astype(most > 0, p.dtype))
