"""Triton kernels of a device round beside those of the law: its window, one draft, and the commit of its tokens.

One program per image. All small work between two steps of the models is a single launch, since a launch costs more than
this arithmetic. Knows pointers to contiguous tensors, as `kernels`. Does not know devices, allocation or grids.

Imported only where a kernel is launched or compiled: it needs triton. Parameters are inputs, then scalars, then
outputs, then constants; tensors that are both read and written are listed as outputs.

Legend: M images, R rows (2M under CFG: image m is rows m and M + m), W prefix length, N image tokens, L draft length, V
codes, S positions of a step. LB is a power of two, at least L + 1; C and B as in `kernels`.
"""

# triton ships no types, so decorated functions and the values in a kernel are untyped.
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from coolsd_rt.ops.gpu.kernels import distribution, inverse_cdf


@triton.jit
def _rowwise(out, at, other, value, mask, PAIRED: tl.constexpr):
    """Store `value` for an image's row and its unconditional row, which has the same tokens and positions."""
    tl.store(out + at, value, mask=mask)
    if PAIRED:
        tl.store(out + other, value, mask=mask)


@triton.jit(do_not_specialize=["N", "L", "W", "shift"])
def window(
    codes,  # int64 [M, N]
    committed,  # int64 [M]
    num_pending,  # int64 [M]
    draft_allowed,  # bool [M]
    uniforms,  # float32 [M, N, L + 1, 3]
    scales,  # float32 [N], or None: R = M
    fixed,  # int64 [N], -1 = free, or None
    N,  # int32
    L,  # int32
    W,  # int32
    shift,  # int32
    num_drafts,  # out: int64 [M]
    u_draft,  # out: float32 [M, L]
    u_accept,  # out: float32 [M, L]
    u_resample,  # out: float32 [M, L + 1]
    scale,  # out: float32 [M, L + 1], with scales
    forced,  # out: int64 [M, L + 1], with fixed
    is_forced,  # out: bool [M, L], with fixed
    first,  # out: int64 [R, L + 1]
    ids,  # out: int64 [R, L + 1], column 0
    pos,  # out: int64 [L + 1, R]
    last,  # out: int64 [R]
    LB: tl.constexpr,
):
    """Prepare image m = program: uniforms, limits and positions of the coming round."""
    PAIRED: tl.constexpr = scales is not None
    m = tl.program_id(0).to(tl.int64)
    M = tl.num_programs(0)
    R = M * 2 if PAIRED else M
    i = tl.arange(0, LB)
    wide = i <= L
    many = i < L

    known = tl.load(committed + m)
    new = tl.load(num_pending + m)
    left = W + N - known
    most = tl.minimum(tl.maximum(left - 1, 0), L)
    tl.store(num_drafts + m, tl.where(tl.load(draft_allowed + m) != 0, most, 0))

    at = tl.minimum(known - W + i, N - 1)  # a finished image is computed too
    number = ((m * N + at) * (L + 1) + i) * 3
    tl.store(u_draft + m * L + i, tl.load(uniforms + number, mask=many, other=0.0), mask=many)
    tl.store(u_accept + m * L + i, tl.load(uniforms + number + 1, mask=many, other=0.0), mask=many)
    tl.store(u_resample + m * (L + 1) + i, tl.load(uniforms + number + 2, mask=wide, other=0.0), mask=wide)
    if PAIRED:
        tl.store(scale + m * (L + 1) + i, tl.load(scales + at, mask=wide, other=0.0), mask=wide)
    if fixed is not None:
        only = tl.load(fixed + at, mask=wide, other=-1)
        tl.store(forced + m * (L + 1) + i, only, mask=wide)
        tl.store(is_forced + m * L + i, only >= 0, mask=many)

    # The draft's first step processes the pending tokens; its next steps overwrite the cache rows after these.
    behind = known - new
    told = tl.load(codes + m * N + tl.minimum(behind - W + i, N - 1), mask=wide, other=0)
    _rowwise(first, m * (L + 1) + i, (M + m) * (L + 1) + i, told, wide, PAIRED)
    _rowwise(last, m, M + m, new - 1, True, PAIRED)
    _rowwise(ids, m * (L + 1), (M + m) * (L + 1), tl.load(codes + m * N + known - W - 1), True, PAIRED)
    stands = tl.where(i == 0, behind, known + i - 1) - shift
    stands = tl.where(i == L, known - 1, stands)
    _rowwise(pos, i * R + m, i * R + M + m, stands, wide, PAIRED)


@triton.jit(do_not_specialize=["temperature", "top_k", "top_p", "least", "S", "L", "i"])
def draft_token(
    logits,  # [R, S, V] float32, float16 or bfloat16
    last,  # int64 [R], or None: position 0
    u,  # float32 [M, L]
    scale,  # float32 [M, L + 1], or None: R = M
    forced,  # int64 [M, L + 1], -1 = free, or None
    temperature,  # float32, > 0
    top_k,  # int32; outside 1..V-1 = off
    top_p: tl.float64,  # >= 1 = off
    least,  # float32, with peaks
    S,  # int32
    L,  # int32
    i,  # int32
    num_drafts,  # out: int64 [M], with peaks
    peaks,  # out: float32 [M, L], or None: a window is not cut
    q,  # out: float32 [M, L, V], number i
    drafts,  # out: int64 [M, L], number i
    ids,  # out: int64 [R, L + 1], column i + 1
    token,  # out: int64 [R, 1]
    V: tl.constexpr,
    C: tl.constexpr,
    B: tl.constexpr,
    LB: tl.constexpr,
):
    """Draw draft i of image m = program from its Q and store both; after the last draft, cut the window."""
    PAIRED: tl.constexpr = scale is not None
    m = tl.program_id(0).to(tl.int64)
    M = tl.num_programs(0)
    row = m * S
    if last is not None:
        row += tl.load(last + m)
    at = m * (L + 1) + i
    weights = distribution(logits, row, row + M * S, scale, forced, at, temperature, top_k, top_p, V, C, B)

    index = tl.arange(0, C)[:, None] * B + tl.arange(0, B)[None, :]
    inside = index < V
    tl.store(q + (m * L + i) * V + index, weights, mask=inside)
    weights = tl.where(inside, weights, 0.0)
    sums = tl.sum(weights.to(tl.float64), axis=1)
    found, total = inverse_cdf(weights, sums, tl.load(u + m * L + i), C, B)
    drawn = found.to(tl.int64)
    tl.store(drafts + m * L + i, drawn)
    _rowwise(ids, at + 1, at + 1 + M * (L + 1), drawn, True, PAIRED)
    _rowwise(token, m, M + m, drawn, True, PAIRED)

    if peaks is not None:
        # By column first, and without a branch for the last draft: this needs the fewest registers.
        peak = tl.where(total == total, tl.max(tl.max(weights, axis=0)), float("nan"))
        tl.store(peaks + m * L + i, peak)
        j = tl.arange(0, LB)
        until = tl.where(j < i, tl.load(peaks + m * L + j, mask=j < i, other=0.0), peak)
        most = tl.load(num_drafts + m)
        run = tl.min(tl.where((until >= least) | (j >= L), L, j))
        # `verify` has to find a NaN: with one among the drafts that could count, none is cut.
        broken = tl.max(((until != until) & (j < most)).to(tl.int32)) > 0
        tl.debug_barrier()  # `num_drafts` is read by all warps and written by one
        tl.store(num_drafts + m, tl.where(broken, most, tl.minimum(most, run)), mask=i == L - 1)


@triton.jit(do_not_specialize=["least", "N", "L", "W"])
def commit(
    accepted,  # int64 [M]
    token,  # int64 [M]
    empty,  # bool [M]
    broken,  # int32 [M]
    num_drafts,  # int64 [M]
    drafts,  # int64 [M, L]
    p,  # float32 [M, L + 1, V], or None: the next round may always draft
    least,  # float32, with p
    N,  # int32
    L,  # int32
    W,  # int32
    codes,  # out: int64 [M, N]
    committed,  # out: int64 [M]
    num_pending,  # out: int64 [M]
    draft_allowed,  # out: bool [M]
    rounds,  # out: int64 [M]
    histogram,  # out: int64 [L + 1]
    attempts,  # out: int64 [L]
    accepts,  # out: int64 [L]
    degenerate,  # out: int64 [1]
    proposed,  # out: int64 [1]
    fault,  # out: int32 [M]
    V: tl.constexpr,
    C: tl.constexpr,
    B: tl.constexpr,
    LB: tl.constexpr,
):
    """Commit the tokens, counters and faults of image m = program; for a finished one only `draft_allowed` changes.

    Counts over all images are integers: their sum does not depend on the order.
    """
    m = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, LB)
    known = tl.load(committed + m)
    active = known < W + N
    n = tl.load(accepted + m)
    tl.debug_barrier()  # `committed` is read by all warps and written by one

    ended = tl.load(token + m)
    decided = tl.where(i < n, tl.load(drafts + m * L + i, mask=i < n, other=0), ended)
    end = tl.where(active, n, -1)  # no token of a finished image is decided
    tl.store(codes + m * N + known - W + i, decided, mask=i <= end)
    tl.store(committed + m, known + n + 1, mask=active)
    tl.store(num_pending + m, n + 1, mask=active)

    tl.store(rounds + m, tl.load(rounds + m) + 1, mask=active)
    one = tl.full((LB,), 1, tl.int64)
    many = tl.load(num_drafts + m)
    evaluated = tl.minimum(end + 1, many)
    lost = tl.where(active, tl.load(empty + m).to(tl.int32), 0)
    tl.atomic_add(histogram + i, one, mask=i == end, sem="relaxed")
    tl.atomic_add(attempts + i, one, mask=i < evaluated, sem="relaxed")
    tl.atomic_add(accepts + i, one, mask=i < end, sem="relaxed")
    tl.atomic_add(degenerate + i, one, mask=i < lost, sem="relaxed")
    tl.atomic_add(proposed + i, one * many, mask=i < tl.where(active, 1, 0), sem="relaxed")
    tl.store(fault + m, tl.load(fault + m) | tl.load(broken + m), mask=active)

    enough = True
    if p is not None:
        index = tl.arange(0, C)[:, None] * B + tl.arange(0, B)[None, :]
        row = tl.load(p + (m * (L + 1) + n) * V + index, mask=index < V, other=0.0)
        nan = tl.max((row != row).to(tl.int32)) > 0
        enough = (tl.max(row) >= least) & ~nan
    tl.store(draft_allowed + m, enough)
