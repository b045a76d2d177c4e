"""The three Triton kernels: logits to a distribution (and a token), verification of a window, a token from weights.

One program handles one row, which stays in registers from one read to one write: a launch reads each number once.
Thresholds are found by bisection over the bits of the floats, which order as integers do, so nothing is sorted and ties
stay together. Sums that decide a token are in float64. Knows pointers to contiguous tensors. Does not know devices,
allocation or grids.

Imported only where a kernel is launched or compiled: it needs triton. Parameters are inputs, then scalars, then
outputs, then constants: the order in which a TensorRT plugin passes them.

Legend: M images, S positions, L draft length, V codes. A row of V codes is held as [C, B], C * B >= V, row-major, the
rest masked; LB is a power of two, at least L.
"""

# triton ships no types, so decorated functions and the values in a kernel are untyped.
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from coolsd_rt.law.residual import DEGENERATE_MASS
from coolsd_rt.ops.gpu.faults import FAULT_DRAFT, FAULT_TOTAL, FAULT_WINDOW

# A kernel sees only globals of this type. A bare float would become float32 where it meets no float64.
_BELOW_ONE = tl.constexpr(1.0 - 2.0**-53)
_DEGENERATE = tl.constexpr(DEGENERATE_MASS)
_DRAFT = tl.constexpr(FAULT_DRAFT)
_TOTAL = tl.constexpr(FAULT_TOTAL)
_WINDOW = tl.constexpr(FAULT_WINDOW)
_INF = tl.constexpr(float("inf"))
# No NaN here: at each launch triton compares a kernel's globals with those it was compiled with, and NaN != NaN.


@triton.jit
def _order(x):
    """Map float32 x to int32 keys that have the same order, or the bits of a key back to those of x.

    x has no -0.0 and no NaN.
    """
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _top_k_key(key, highest, k, V: tl.constexpr):
    """Return the greatest t with at least k keys >= t, or any t with exactly k keys >= t.

    If k is outside 1..V-1, t lies below all keys. Masked keys are the least int32, below every t.
    """
    lo = tl.full((), -2147483647, tl.int64)
    hi = tl.where((k > 0) & (k < V), highest.to(tl.int64), lo)
    while lo < hi:
        mid = (lo + hi + 1) >> 1
        reach = tl.sum((key >= mid.to(tl.int32)).to(tl.int32))
        lo = tl.where(reach >= k, mid, lo)
        hi = tl.where(reach > k, hi, tl.where(reach == k, mid, mid - 1))
    return lo.to(tl.int32)


@triton.jit
def _top_p_key(probs, top_p, V: tl.constexpr):
    """Return t such that top-p keeps the probabilities whose bits are > t.

    A probability stays while the mass of the likelier ones is at most top_p. Non-negative floats order as their bits
    do. The mass above t falls as t rises, and the last probability to keep is in (lo, hi]: the search is over when at
    most one is left there.
    """
    bits = probs.to(tl.int32, bitcast=True)
    mass = probs.to(tl.float64)
    bound = tl.full((), top_p, tl.float64)
    # V codes below `least` have too little mass to bring the mass above them down to top_p: none of them stays.
    least = tl.maximum(((0.99 - bound) / V).to(tl.float32), 0.0)
    lo = tl.where(least > 0, least.to(tl.int32, bitcast=True), -1)
    hi = tl.max(bits)
    over_lo = tl.full((), 2.0, tl.float64)  # unknown: greater than any possible mass
    over_hi = tl.full((), 0.0, tl.float64)
    # Two probabilities above lo weigh more than twice the float of lo; this test avoids a second sum that counts them.
    while (hi - lo > 1) & (over_lo - over_hi > 2.0 * least.to(tl.float64)):
        mid = lo + ((hi - lo) >> 1)
        # Summing by column first needs the fewest registers.
        over = tl.sum(tl.sum(tl.where(bits > mid, mass, 0.0), axis=0))
        few = over <= bound
        lo = tl.where(few, lo, mid)
        hi = tl.where(few, mid, hi)
        least = tl.where(few, least, mid.to(tl.float32, bitcast=True))
        over_lo = tl.where(few, over_lo, over)
        over_hi = tl.where(few, over, over_hi)
    return lo


@triton.jit
def inverse_cdf(weights, sums, u, C: tl.constexpr, B: tl.constexpr):
    """Return (index int32, total float64): the code that uniform u selects from weights float32 [C, B].

    sums: float64 [C], the sums of the rows of `weights`.

    The index is the smallest of positive weight whose cumulative weight is greater than u * total. The search finds the
    row of [C, B] first, then the place in it: two short scans instead of one over V. If rounding leaves no such index,
    it is the last of positive weight; 0 if there is none, or a NaN.
    """
    row = tl.arange(0, C)
    column = tl.arange(0, B)
    ends = tl.cumsum(sums, axis=0)
    total = tl.sum(tl.where(row == C - 1, ends, 0.0))
    reached = tl.minimum(u.to(tl.float64), tl.full((), _BELOW_ONE, tl.float64)) * total

    first = tl.min(tl.where((ends > reached) & (sums > 0), row, C))
    first = tl.minimum(first, tl.max(tl.where(sums > 0, row, 0)))
    before = tl.sum(tl.where(row == first - 1, ends, 0.0))
    # Selects the row from registers: at most one of the C terms of each sum is not 0.
    inner = tl.sum(tl.where(row[:, None] == first, weights, 0.0), axis=0)
    cdf = before + tl.cumsum(inner.to(tl.float64), axis=0)

    place = tl.min(tl.where((cdf > reached) & (inner > 0), column, B))
    place = tl.minimum(place, tl.max(tl.where(inner > 0, column, 0)))
    return first * B + place, total


@triton.jit
def _total_fault(total):
    return tl.where((total > 0) & (total < _INF), 0, _TOTAL)


@triton.jit
def distribution(
    logits, row, pair, scale, forced, at, temperature, top_k, top_p, V: tl.constexpr, C: tl.constexpr, B: tl.constexpr
):
    """Return a distribution float32 [C, B] after CFG, temperature, top-k, softmax, top-p and forcing.

    The first V numbers count. A row is NaN throughout or not at all.

    row: index of the row of logits.
    pair: index of its unconditional row, used if scale is not None.
    at: index into scale and forced.
    """
    index = tl.arange(0, C)[:, None] * B + tl.arange(0, B)[None, :]
    inside = index < V

    x = tl.load(logits + row * V + index, mask=inside, other=0.0).to(tl.float32)
    if scale is not None:
        uncond = tl.load(logits + pair * V + index, mask=inside, other=0.0).to(tl.float32)
        x = uncond + (x - uncond) * tl.load(scale + at)
    if temperature != 1.0:
        x = tl.div_rn(x, temperature)
    broken = tl.max((~(tl.abs(x) < _INF)).to(tl.int32)) > 0  # a NaN compares false
    x = tl.where(x == 0.0, 0.0, x)  # -0.0 ties with 0.0
    key = tl.where(inside, _order(x), -2147483648)
    highest = tl.max(key)
    stays = key >= _top_k_key(key, highest, top_k, V)

    weights = tl.where(stays & inside, tl.exp(x - _order(highest).to(tl.float32, bitcast=True)), 0.0)
    weights = weights * tl.div_rn(1.0, tl.sum(weights))
    if top_p < 1.0:
        likely = weights.to(tl.int32, bitcast=True) > _top_p_key(weights, top_p, V)
        weights = tl.where(likely, weights, 0.0)
        weights = weights * tl.div_rn(1.0, tl.sum(weights))
    weights = tl.where(broken, float("nan"), weights)
    if forced is not None:
        only = tl.load(forced + at)
        weights = tl.where(only < 0, weights, tl.where(only >= V, float("nan"), (index == only).to(tl.float32)))
    return weights


@triton.jit(do_not_specialize=["temperature", "top_k", "top_p"])
def process_logits(
    logits,  # [R, S, V] float32, float16 or bfloat16
    scale,  # float32 [M, S], or None: R = M
    forced,  # int64 [M, S], -1 = free, or None
    u,  # float32 [M, S], or None: no tokens are drawn
    temperature,  # float32, > 0
    top_k,  # int32; outside 1..V-1 = off
    top_p: tl.float64,  # >= 1 = off
    probs,  # out: float32 [M, S, V]
    tokens,  # out: int64 [M, S], with u
    V: tl.constexpr,
    C: tl.constexpr,
    B: tl.constexpr,
):
    """Compute row r = program of M * S: a distribution and, if u is given, a token."""
    r = tl.program_id(0).to(tl.int64)
    pair = r + tl.num_programs(0)
    weights = distribution(logits, r, pair, scale, forced, r, temperature, top_k, top_p, V, C, B)
    index = tl.arange(0, C)[:, None] * B + tl.arange(0, B)[None, :]
    inside = index < V
    tl.store(probs + r * V + index, weights, mask=inside)
    if u is not None:
        weights = tl.where(inside, weights, 0.0)
        token, _ = inverse_cdf(weights, tl.sum(weights.to(tl.float64), axis=1), tl.load(u + r), C, B)
        tl.store(tokens + r, token.to(tl.int64))


@triton.jit
def sample(
    weights,  # float32 [M, S, V]
    u,  # float32 [M, S]
    tokens,  # out: int64 [M, S]
    fault,  # out: int32 [M, S]
    V: tl.constexpr,
    C: tl.constexpr,
    B: tl.constexpr,
):
    """Draw the token of row r = program of M * S."""
    r = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, C)[:, None] * B + tl.arange(0, B)[None, :]
    row = tl.load(weights + r * V + index, mask=index < V, other=0.0)
    token, total = inverse_cdf(row, tl.sum(row.to(tl.float64), axis=1), tl.load(u + r), C, B)
    tl.store(tokens + r, token.to(tl.int64))
    tl.store(fault + r, _total_fault(total))


@triton.jit(do_not_specialize=["L"])
def verify(
    target,  # P, float32 [M, L + 1, V]
    draft,  # Q, float32 [M, L, V]
    tokens,  # int64 [M, L]
    num_drafts,  # int64 [M]
    omegas,  # float64 [L]
    u_accept,  # float32 [M, L]
    u_resample,  # float32 [M, L + 1]
    forced,  # bool [M, L], or None
    rates,  # float64 [L], or None
    L,  # int32
    accepted,  # out: int64 [M]
    token,  # out: int64 [M]
    degenerate,  # out: bool [M]
    fault,  # out: int32 [M]
    KIND: tl.constexpr,  # "optimal", "residual" or "target"
    V: tl.constexpr,
    C: tl.constexpr,
    B: tl.constexpr,
    LB: tl.constexpr,
):
    """Verify image m = program: accept drafts up to the first rejection, then draw the token that ends the round.

    Reads L numbers and one row of P; of Q, L numbers and, after a rejection, one row.
    """
    tl.static_assert(KIND == "optimal" or KIND == "residual" or KIND == "target", "no such resampler in the kernel")
    m = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, LB)
    many = tl.load(num_drafts + m)
    evaluated = (i < many) & (i < L)
    ids = tl.load(tokens + m * L + i, mask=evaluated, other=0)
    named = evaluated & (ids >= 0) & (ids < V)
    p = tl.load(target + (m * (L + 1) + i) * V + ids, mask=named, other=0.0).to(tl.float64)
    q = tl.load(draft + (m * L + i) * V + ids, mask=named, other=0.0).to(tl.float64)
    unsound = tl.max((evaluated & ~((q > 0) & (p >= 0))).to(tl.int32))

    # Strict and in float64, as in law/acceptance.py, where the products are exact.
    chance = tl.load(u_accept + m * L + i, mask=evaluated, other=0.0).to(tl.float64)
    omega = tl.load(omegas + i, mask=i < L, other=0.0)
    is_accepted = chance * q < omega * p if rates is None else chance < tl.load(rates + i, mask=i < L, other=0.0)
    if forced is not None:
        is_accepted = is_accepted | (tl.load(forced + m * L + i, mask=evaluated, other=0) != 0)
    n = tl.min(tl.where(is_accepted & evaluated, LB, i))
    rejected = n < tl.minimum(many, L)

    index = tl.arange(0, C)[:, None] * B + tl.arange(0, B)[None, :]
    inside = index < V
    weights = tl.load(target + (m * (L + 1) + n) * V + index, mask=inside, other=0.0)
    empty = False
    if KIND == "target":
        sums = tl.sum(weights.to(tl.float64), axis=1)
    else:
        drafted = tl.load(draft + (m * L + n) * V + index, mask=index < tl.where(rejected, V, 0), other=0.0)
        if KIND == "optimal":
            most = tl.sum(tl.where(i == n, omega, 0.0)).to(tl.float32) * weights
            drafted = tl.minimum(drafted, most, propagate_nan=tl.PropagateNan.ALL)
        left = weights - drafted
        left = tl.where(rejected, left * (left > 0).to(tl.float32), weights)  # 0 * NaN: a NaN survives
        sums = tl.sum(left.to(tl.float64), axis=1)
        empty = rejected & (tl.sum(sums) < tl.full((), _DEGENERATE, tl.float64))
        if empty:
            sums = tl.sum(weights.to(tl.float64), axis=1)
        weights = tl.where(empty, weights, left)

    ending, total = inverse_cdf(weights, sums, tl.load(u_resample + m * (L + 1) + n), C, B)
    misfit = tl.where((many < 0) | (many > L), _WINDOW, 0)
    tl.store(accepted + m, n.to(tl.int64))
    tl.store(token + m, ending.to(tl.int64))
    tl.store(degenerate + m, empty)
    tl.store(fault + m, misfit | (unsound * _DRAFT) | _total_fault(total))
