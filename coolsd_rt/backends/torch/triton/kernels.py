"""Triton kernels of a narrow step except attention: embeddings, norms, and products of few rows with a weight.

A decoding step reads every weight once for two to sixteen rows, so a product is a stream of weights; the operations
before it (norm) and after it (bias, gate, residual) are fused into it. Norms and sums are float32; values that eager
networks round to the weights' type are rounded here too. Knows pointers to contiguous tensors. Does not know networks,
devices or grids.

Imported only where a kernel is launched or compiled: it needs triton. The eager twin is `coolsd_rt.models.layers`.

Legend: M rows of activations, of K numbers; N outputs; T the weights' type. PDL: the launch may begin while the
previous kernel still runs (programmatic dependent launch, sm_90 on); that kernel's output is read only after
`gdc_wait`, and weights, which nothing writes, before it.
"""

# triton ships no types, so decorated functions and the values in a kernel are untyped.
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]


@triton.jit
def pdl_launch_dependents(PDL: tl.constexpr):
    """With PDL: allow the next kernel to begin once every program has reached this point."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def pdl_wait(PDL: tl.constexpr):
    """With PDL: wait until the previous kernel has finished and its output can be read."""
    if PDL:
        tl.extra.cuda.gdc_wait()


@triton.jit
def _rescaled(x, scale, gain):
    """Return x * scale, rounded to the type of x, times the gain: RMSNorm with the roundings of eager networks."""
    return ((x.to(tl.float32) * scale).to(x.dtype).to(tl.float32) * gain.to(tl.float32)).to(x.dtype)


@triton.jit
def _root(total, K: tl.constexpr, eps):
    """Return 1 / sqrt(mean + eps) for a sum of squares."""
    return tl.rsqrt(total / K + eps)


@triton.jit
def _finished(y, n, bias, residual, row, inside, N: tl.constexpr, T: tl.constexpr):
    """Add a bias to the sums y float32 of a product, or round them and add the residual, as eager networks do."""
    if bias is not None:
        y += tl.load(bias + n, mask=inside, other=0.0).to(tl.float32)
    if residual is not None:
        y = y.to(T).to(tl.float32) + tl.load(residual + row * N + n, mask=inside, other=0.0).to(tl.float32)
    return y


@triton.jit
def _gated(y, g, T: tl.constexpr):
    """Return silu(y) * g, with both rounded to T first."""
    y = y.to(T).to(tl.float32)
    return (y * tl.sigmoid(y)).to(T).to(tl.float32) * g.to(T).to(tl.float32)


@triton.jit
def embed(
    ids,  # int64 [R, S]
    pos,  # int64 [R]
    prefix,  # T [R, W, C], its rows `prefix_row` numbers apart and its slots `prefix_slot`
    table,  # T [codes, C]
    features,  # T [R, S, C], or None
    out,  # out: T [R, S, C], with features [R, S, 2C]
    prefix_row,
    prefix_slot,
    S,
    shift,  # added to pos
    W: tl.constexpr,
    C: tl.constexpr,
    CB: tl.constexpr,
    BLANK: tl.constexpr,  # every prefix slot is embedded as code 0 of the table
    PDL: tl.constexpr,
):
    """Embed position i = program of R * S: from the prefix below W, from the table from W on.

    Given features, the position's feature follows its embedding.
    """
    i = tl.program_id(0).to(tl.int64)
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    c = tl.arange(0, CB)
    inside = c < C
    where = tl.load(pos + i // S) + i % S + shift
    before = where < W
    code = tl.load(ids + i)
    if BLANK:
        x = tl.load(table + tl.where(before, 0, code) * C + c, mask=inside, other=0.0)
    else:
        given = prefix + i // S * prefix_row + tl.minimum(where, W - 1) * prefix_slot
        early = tl.load(given + c, mask=c < tl.where(before, C, 0), other=0.0)
        x = tl.where(before, early, tl.load(table + code * C + c, mask=c < tl.where(before, 0, C), other=0.0))
    if features is None:
        tl.store(out + i * C + c, x, mask=inside)
    else:
        tl.store(out + i * 2 * C + c, x, mask=inside)
        tl.store(out + i * 2 * C + C + c, tl.load(features + i * C + c, mask=inside), mask=inside)


@triton.jit
def normalise(
    x,  # T [M, K]
    more,  # T [M, K] or None: added to x first, and the sum kept in x
    gain,  # T [K] or None: no norm
    out,  # out: T [M, K], with a gain
    eps,
    K: tl.constexpr,
    KB: tl.constexpr,
    PDL: tl.constexpr,
):
    """Process row m = program: x += more, then RMSNorm of x."""
    m = tl.program_id(0).to(tl.int64)
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    k = tl.arange(0, KB)
    row = tl.load(x + m * K + k, mask=k < K, other=0.0)
    if more is not None:
        row = (row.to(tl.float32) + tl.load(more + m * K + k, mask=k < K, other=0.0).to(tl.float32)).to(row.dtype)
        tl.store(x + m * K + k, row, mask=k < K)
    if gain is not None:
        total = tl.sum(row.to(tl.float32) * row.to(tl.float32))
        y = _rescaled(row, _root(total, K, eps), tl.load(gain + k, mask=k < K, other=0.0))
        tl.store(out + m * K + k, y, mask=k < K)


@triton.jit
def gated(
    y,  # T [M, N]
    g,  # T [M, N]
    out,  # out: T [M, N]
    count,  # M * N
    B: tl.constexpr,
    PDL: tl.constexpr,
):
    """Compute silu(y) * g."""
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    a = tl.load(y + i, mask=i < count, other=0.0)
    b = tl.load(g + i, mask=i < count, other=0.0)
    tl.store(out + i, _gated(a, b, a.dtype).to(a.dtype), mask=i < count)


@triton.jit
def gemv_rows2(
    x,  # T [ROWS, K]
    gain,  # T [K], or None: x is taken as it is
    w,  # T [N, K]
    gate,  # T [N, K], or None: with it silu(x w') * (x gate')
    bias,  # T [N], or None
    residual,  # T [ROWS, N], or None; may be out
    out,  # out: [ROWS, N], float32 or T
    eps,
    ROWS: tl.constexpr,  # 1 or 2
    N: tl.constexpr,
    K: tl.constexpr,
    XB: tl.constexpr,  # a power of two, at least K
    BN: tl.constexpr,
    BK: tl.constexpr,
    PDL: tl.constexpr,
):
    """Compute BN outputs per program for one row or two, without tensor cores: RMSNorm, product, bias, gate, residual.

    A program issues the loads of all its weights, up to BK numbers per output, before any other work.
    """
    T: tl.constexpr = w.dtype.element_ty
    pdl_launch_dependents(PDL)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    column = tl.arange(0, BK)
    at = n.to(tl.int64)[:, None] * K + column[None, :]
    inside = (n < N)[:, None] & (column < K)[None, :]
    ws = tl.load(w + at, mask=inside, other=0.0)
    if gate is not None:
        gs = tl.load(gate + at, mask=inside, other=0.0)
    pdl_wait(PDL)
    if not PDL:
        tl.debug_barrier()  # or the compiler moves the weight loads behind the norm

    scale0 = 1.0
    scale1 = 1.0
    if gain is not None:
        every = tl.arange(0, XB)
        row = tl.load(x + every, mask=every < K, other=0.0).to(tl.float32)
        scale0 = _root(tl.sum(row * row), K, eps)
        if ROWS == 2:
            row = tl.load(x + K + every, mask=every < K, other=0.0).to(tl.float32)
            scale1 = _root(tl.sum(row * row), K, eps)

    y0 = tl.zeros([BN], tl.float32)
    y1 = tl.zeros([BN], tl.float32)
    g0 = tl.zeros([BN], tl.float32)
    g1 = tl.zeros([BN], tl.float32)
    for begin in tl.static_range(0, K, BK):
        k = begin + column
        if begin > 0:
            inside = (n < N)[:, None] & (k < K)[None, :]
            ws = tl.load(w + at + begin, mask=inside, other=0.0)
            if gate is not None:
                gs = tl.load(gate + at + begin, mask=inside, other=0.0)
        x0 = tl.load(x + k, mask=k < K, other=0.0)
        if gain is not None:
            gains = tl.load(gain + k, mask=k < K, other=0.0)
            x0 = _rescaled(x0, scale0, gains)
        y0 += tl.sum(ws.to(tl.float32) * x0.to(tl.float32)[None, :], axis=1)
        if gate is not None:
            g0 += tl.sum(gs.to(tl.float32) * x0.to(tl.float32)[None, :], axis=1)
        if ROWS == 2:
            x1 = tl.load(x + K + k, mask=k < K, other=0.0)
            if gain is not None:
                x1 = _rescaled(x1, scale1, gains)
            y1 += tl.sum(ws.to(tl.float32) * x1.to(tl.float32)[None, :], axis=1)
            if gate is not None:
                g1 += tl.sum(gs.to(tl.float32) * x1.to(tl.float32)[None, :], axis=1)

    if gate is not None:
        y0 = _gated(y0, g0, T)
        y1 = _gated(y1, g1, T)
    y0 = _finished(y0, n, bias, residual, 0, n < N, N, T)
    tl.store(out + n, y0.to(out.dtype.element_ty), mask=n < N)
    if ROWS == 2:
        y1 = _finished(y1, n, bias, residual, 1, n < N, N, T)
        tl.store(out + N + n, y1.to(out.dtype.element_ty), mask=n < N)


@triton.jit(do_not_specialize=["M"])
def product(
    x,  # T [M, K], M <= BM
    gain,  # T [K], or None: x is taken as it is
    w,  # T [N, K]
    gate,  # T [N, K], or None: with it silu(x w') * (x gate'), and PARTS is 1
    bias,  # T [N], or None
    residual,  # T [M, N], or None; may be out
    out,  # out: [M, N], float32 or T
    parts,  # scratch: float32 [PARTS, BM, N]
    arrived,  # scratch: int32 [programs of axis 0], arrival counters; zero on entry, reset to zero on exit
    eps,
    M,
    N: tl.constexpr,
    K: tl.constexpr,
    PART: tl.constexpr,  # numbers of K that a program of axis 1 sums: a multiple of BK
    PARTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PDL: tl.constexpr,
):
    """Compute outputs [M, BN] per program: RMSNorm, product on tensor cores, bias, gate and residual.

    If N alone gives too few programs, K is split into PARTS; the last program to finish adds the partial sums in their
    order, so that equal inputs give equal sums.
    """
    T: tl.constexpr = w.dtype.element_ty
    tile = tl.program_id(0)
    part = tl.program_id(1)
    m = tl.arange(0, BM)
    n = tile * BN + tl.arange(0, BN)
    column = tl.arange(0, BK)
    pdl_launch_dependents(PDL)
    pdl_wait(PDL)
    scale = tl.full([BM], 1.0, tl.float32)
    if gain is not None:
        squares = tl.zeros([BM, BK], tl.float32)
        for begin in tl.static_range(0, K, BK):  # unrolled, so that all loads are issued before one is waited for
            k = begin + column
            xs = tl.load(x + m[:, None] * K + k[None, :], mask=(m < M)[:, None] & (k < K)[None, :], other=0.0)
            squares += xs.to(tl.float32) * xs.to(tl.float32)
        total = tl.sum(squares, axis=1)
        scale = _root(total, K, eps)

    y = tl.zeros([BM, BN], tl.float32)
    g = tl.zeros([BM, BN], tl.float32)
    for begin in range(part * PART, min(K, part * PART + PART), BK):
        k = begin + column
        xs = tl.load(x + m[:, None] * K + k[None, :], mask=(m < M)[:, None] & (k < K)[None, :], other=0.0)
        if gain is not None:
            xs = _rescaled(xs, scale[:, None], tl.load(gain + k, mask=k < K, other=0.0)[None, :])
        at = n.to(tl.int64)[:, None] * K + k[None, :]
        inside = (n < N)[:, None] & (k < K)[None, :]
        y = tl.dot(xs, tl.load(w + at, mask=inside, other=0.0).trans(), y, input_precision="ieee")
        if gate is not None:
            g = tl.dot(xs, tl.load(gate + at, mask=inside, other=0.0).trans(), g, input_precision="ieee")
    if gate is not None:
        y = _gated(y, g, T)

    place = m[:, None] * N + n[None, :]
    inside = (m < M)[:, None] & (n < N)[None, :]
    last = True
    if PARTS > 1:
        tl.store(parts + part * BM * N + place, y, mask=inside)
        tl.debug_barrier()  # finish all stores before this program counts as arrived
        last = tl.atomic_add(arrived + tile, 1, sem="acq_rel") == PARTS - 1
        if last:
            tl.store(arrived + tile, 0)
            y = tl.zeros([BM, BN], tl.float32)
            for i in range(PARTS):  # bypass the L1 cache: other processors wrote these
                y += tl.load(parts + i * BM * N + place, mask=inside, other=0.0, cache_modifier=".cg")
    if last:
        y = _finished(y, n[None, :], bias, residual, m[:, None], inside, N, T)
        tl.store(out + place, y.to(out.dtype.element_ty), mask=inside)
