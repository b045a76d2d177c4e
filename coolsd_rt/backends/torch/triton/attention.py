"""The Triton kernel of attention over a static cache: norms of heads, RoPE, cache writes, and the attention.

Reads only the valid part of the cache, whatever its capacity. Knows pointers to contiguous tensors. Does not know
networks, devices or grids. Imported only where it is launched or compiled. The eager counterpart is
`coolsd_rt.models.layers.Attention`.

Legend: R rows of a batch, S new positions, KH heads of the cache, each read by G heads of queries, D their width, T the
cache's capacity; DB, QB, SB powers of two, at least 16, that hold D, G * S and S.
"""

# triton ships no types, so decorated functions and the values in a kernel are untyped.
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from coolsd_rt.backends.torch.triton.kernels import pdl_launch_dependents, pdl_wait

_NOTHING = tl.constexpr(-1e30)  # below every score; finite, so that its difference with itself is 0


@triton.jit
def _normed(x, mean, root, weight, bias):
    """Apply LayerNorm with the roundings of the eager networks."""
    y = ((x.to(tl.float32) - mean) * root).to(x.dtype).to(tl.float32)
    y = (y * weight.to(tl.float32)).to(x.dtype).to(tl.float32)
    return (y + bias.to(tl.float32)).to(x.dtype)


@triton.jit
def _turned(x, row, head, weight, bias, eps, table, turn, D: tl.constexpr, DB: tl.constexpr, HALF: tl.constexpr):
    """Load heads at x + row [I, 1], normalise them if weight and bias [H, D] are given, and rotate them by `turn`.

    head: [I, 1], number of each head.
    turn: int64 [I], rows of the table [P, D/2, 2]. Each number is read together with its partner of the pair.
    """
    d = tl.arange(0, DB)
    if HALF:
        other = tl.where(d < D // 2, d + D // 2, d - D // 2)
        pair = d % (D // 2)
        sign = tl.where(d < D // 2, -1.0, 1.0)
    else:
        other = d ^ 1
        pair = d // 2
        sign = tl.where(d % 2 == 0, -1.0, 1.0)
    inside = (d < D)[None, :]
    a = tl.load(x + row + d[None, :], mask=inside, other=0.0)
    b = tl.load(x + row + other[None, :], mask=inside, other=0.0)
    if weight is not None:
        mean = tl.sum(a.to(tl.float32), axis=1)[:, None] / D
        off = tl.where(inside, a.to(tl.float32) - mean, 0.0)
        root = tl.rsqrt(tl.sum(off * off, axis=1)[:, None] / D + eps)
        mine = head * D + d[None, :]
        its = head * D + other[None, :]
        a = _normed(a, mean, root, tl.load(weight + mine, inside, 0.0), tl.load(bias + mine, inside, 0.0))
        b = _normed(b, mean, root, tl.load(weight + its, inside, 0.0), tl.load(bias + its, inside, 0.0))
    angle = table + (turn[:, None] * (D // 2) + pair[None, :]) * 2
    cos = tl.load(angle, mask=inside, other=0.0)
    sin = tl.load(angle + 1, mask=inside, other=0.0)
    return (a.to(tl.float32) * cos + sign[None, :] * (b.to(tl.float32) * sin)).to(x.dtype.element_ty)


@triton.jit
def _grown(best, mass, sums, scores, seen, values):
    """Update the running maximum, mass and weighted sum of a softmax with scores [I, J] and values [J, D]."""
    scores = tl.where(seen, scores, _NOTHING)
    top = tl.maximum(best, tl.max(scores, axis=1))
    old = tl.exp(best - top)
    weights = tl.where(seen, tl.exp(scores - top[:, None]), 0.0)
    mass = mass * old + tl.sum(weights, axis=1)
    sums = tl.dot(weights.to(values.dtype), values, sums * old[:, None], input_precision="ieee")
    return top, mass, sums


@triton.jit(do_not_specialize=["capacity", "positions", "shift"])
def attend(
    qkv,  # [R, S, (G + 2) * KH * D], in the order q | k | v
    table,  # float32 [positions, D/2, 2], cos and sin
    pos,  # int64 [R]
    start,  # int64 [R], the first position that is not padding, or None
    q_weight,  # [G * KH, D] or None, and the other three likewise
    q_bias,
    k_weight,
    k_bias,
    k_cache,  # [R, KH, capacity, D], rows pos .. pos + S - 1 are written
    v_cache,
    out,  # out: [R, S, G * KH * D]
    part_sums,  # scratch: float32 [R * KH, chunks, QB, D]
    part_top,  # scratch: float32 [R * KH, chunks, 2, QB]
    arrived,  # scratch: int32 [R * KH], arrival counters; zero on entry, reset to zero on exit
    scale,  # float32, of scores
    eps,  # float32, of the norms
    capacity,
    positions,
    shift,  # added to a position before its angle is read
    S: tl.constexpr,
    KH: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    DB: tl.constexpr,
    QB: tl.constexpr,
    SB: tl.constexpr,
    CHUNK: tl.constexpr,  # cache rows of a program of axis 1
    HALF: tl.constexpr,  # RoPE pairs the halves of a head, not neighbours
    FROM_START: tl.constexpr,  # angles count from `start`
    PDL: tl.constexpr,
):
    """Compute attention of head h of row r, program of R * KH, for its S positions over one chunk of the cache.

    The first chunk also handles the new positions and writes them. The mask is that of `layers.visible`. The last of a
    head's programs to finish merges the chunks, in their order.
    """
    r = (tl.program_id(0) // KH).to(tl.int64)
    h = tl.program_id(0) % KH
    chunk = tl.program_id(1)
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    old = tl.load(pos + r)
    chunks = tl.maximum((old + CHUNK - 1) // CHUNK, 1)
    if chunk >= chunks:
        return
    first = tl.zeros([], tl.int64)
    if start is not None:
        first = tl.load(start + r)
    turned_by = shift - first if FROM_START else shift + 0 * first

    d = tl.arange(0, DB)
    inside = (d < D)[None, :]
    cache = (r * KH + h) * capacity * D

    i = tl.arange(0, QB)
    s = tl.minimum(i % S, S - 1)
    head = h * G + tl.minimum(i // S, G - 1)
    wide: tl.constexpr = (G + 2) * KH * D
    at = old + s
    turn = tl.minimum(tl.maximum(at + turned_by, 0), positions - 1)
    rows = ((r * S + s) * wide + head * D)[:, None]
    q = _turned(qkv, rows, head[:, None], q_weight, q_bias, eps, table, turn, D, DB, HALF)
    lowest = tl.where(at >= first, first, 0)  # padding attends to padding

    # These loads are issued before the new positions are processed.
    t = chunk * CHUNK + tl.arange(0, CHUNK)
    before = t < old
    block = cache + t[:, None].to(tl.int64) * D + d[None, :]
    old_k = tl.load(k_cache + block, mask=before[:, None] & inside, other=0.0)
    old_v = tl.load(v_cache + block, mask=before[:, None] & inside, other=0.0)

    best = tl.full([QB], _NOTHING, tl.float32)
    mass = tl.zeros([QB], tl.float32)
    sums = tl.zeros([QB, DB], tl.float32)
    if chunk == 0:
        j = tl.arange(0, SB)
        now = j < S
        later = old + j
        turned = tl.minimum(tl.maximum(later + turned_by, 0), positions - 1)
        row = ((r * S + tl.minimum(j, S - 1)) * wide + (G * KH + h) * D)[:, None]
        own = tl.zeros([SB, 1], tl.int32) + h
        k = _turned(qkv, row, own, k_weight, k_bias, eps, table, turned, D, DB, HALF)
        v = tl.load(qkv + row + KH * D + d[None, :], mask=now[:, None] & inside, other=0.0)
        place = cache + later[:, None] * D + d[None, :]
        fits = (now & (later < capacity))[:, None] & inside
        tl.store(k_cache + place, k, mask=fits)
        tl.store(v_cache + place, v, mask=fits)
        scores = tl.dot(q, k.trans(), input_precision="ieee") * scale
        seen = now[None, :] & (later[None, :] <= at[:, None]) & (later[None, :] >= lowest[:, None])
        best, mass, sums = _grown(best, mass, sums, scores, seen, v)

    scores = tl.dot(q, old_k.trans(), input_precision="ieee") * scale
    seen = before[None, :] & (t[None, :] >= lowest[:, None])
    best, mass, sums = _grown(best, mass, sums, scores, seen, old_v)

    last = True
    if chunks > 1:
        here = (tl.program_id(0) * tl.num_programs(1)).to(tl.int64)
        tops = part_top + (here + chunk) * 2 * QB + i
        square = i[:, None] * D + d[None, :]
        tl.store(tops, best)
        tl.store(tops + QB, mass)
        tl.store(part_sums + (here + chunk) * QB * D + square, sums, mask=inside)
        tl.debug_barrier()  # finish all stores before this program counts as arrived
        last = tl.atomic_add(arrived + tl.program_id(0), 1, sem="acq_rel") == chunks - 1
        if last:
            tl.store(arrived + tl.program_id(0), 0)
            best = tl.full([QB], _NOTHING, tl.float32)
            mass = tl.zeros([QB], tl.float32)
            sums = tl.zeros([QB, DB], tl.float32)
            for c in range(chunks):  # bypass the L1 cache: other processors wrote these
                tops = part_top + (here + c) * 2 * QB + i
                top = tl.load(tops, cache_modifier=".cg")
                more = tl.load(tops + QB, cache_modifier=".cg")
                other = tl.load(part_sums + (here + c) * QB * D + square, mask=inside, other=0.0, cache_modifier=".cg")
                both = tl.maximum(best, top)
                mine = tl.exp(best - both)
                its = tl.exp(top - both)
                mass = mass * mine + more * its
                sums = sums * mine[:, None] + other * its[:, None]
                best = both
    if last:
        y = sums / mass[:, None]
        target = ((r * S + s) * (G * KH * D) + head * D)[:, None] + d[None, :]
        tl.store(out + target, y.to(out.dtype.element_ty), mask=(i < G * S)[:, None] & inside)
