"""The kernels of a narrow step as functions of tensors: block shapes, scratch memory, launches.

Knows how many programs a launch should have. Does not know networks. Scratch memory that has to be zero is allocated
once, and each kernel leaves it zero, since launches of one stream run in order. Nothing here has run on a GPU: the
blocks are chosen by counting bytes in flight, not by timing. Legend as in `kernels` and `attention`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from coolsd_rt.ops.gpu.launch import launch_on
from coolsd_rt.ops.gpu.shapes import power

GEMV_MAX_ROWS = 2  # most rows multiplied without tensor cores: a guided image, one position
PRODUCT_MAX_ROWS = 16  # most rows of a product by kernels: a block of the tensor cores
_COUNTERS = 4096


@dataclass(frozen=True)
class Blocks:
    """Work per program. Chosen by bytes in flight, not by timing; `tools/gpu/kernels.py` times alternatives.

    numbers: weights per program of `gemv_rows2`, all loaded at once, at most `longest` of one output.
    few_warps, warps: warps of `gemv_rows2` and of `product`.
    columns, deep: the block of weights in `product`, of which `stages` are in flight.
    programs: number of programs that a launch of `product` approaches by splitting K; twice the processors of a large
    GPU.
    """

    numbers: int = 16384
    longest: int = 4096
    few_warps: int = 8
    columns: int = 16
    deep: int = 256
    stages: int = 4
    programs: int = 264
    warps: int = 4


@dataclass(frozen=True)
class WeightView:
    """The weights of a product and of the operations fused with it.

    w: T [N, K].
    gain, eps: RMSNorm before the product.
    gate: T [N, K], for SwiGLU.
    bias: T [N].
    """

    w: Tensor
    gain: Tensor | None = None
    eps: float = 0.0
    gate: Tensor | None = None
    bias: Tensor | None = None


@dataclass(frozen=True)
class Heads:
    """The parameters of a layer's attention. Weights and biases of the norms are T [H, D] or None.

    shared: heads of the cache.
    groups: heads of queries per head of the cache.
    size: width of a head.
    half: whether RoPE pairs the halves of a head rather than neighbours.
    from_start: whether angles count from the first position that is not padding.
    eps: of the norms.
    """

    shared: int
    groups: int
    size: int
    half: bool
    from_start: bool
    eps: float
    q_weight: Tensor | None = None
    q_bias: Tensor | None = None
    k_weight: Tensor | None = None
    k_bias: Tensor | None = None


@dataclass
class Launcher:
    """Launches kernels on one device in order: two threads that step on one launcher would mix their counters.

    pdl: each kernel may begin while the previous one still runs (compute capability 9.0 on).
    """

    device: torch.device
    pdl: bool = False
    blocks: Blocks = field(default_factory=Blocks)
    _counters: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._counters = [torch.zeros(_COUNTERS, dtype=torch.int32, device=self.device)]

    def embed(
        self, ids: Tensor, pos: Tensor, prefix: Tensor, table: Tensor, features: Tensor | None, shift: int, blank: bool
    ) -> Tensor:
        """Embed ids int64 [R, S] at positions pos int64 [R] + shift: [R * S, C].

        With features [R, S, C], each row is followed by its feature: [R * S, 2C].
        """
        (rows, size), (width, dim) = ids.shape, prefix.shape[1:]
        out = table.new_empty(rows * size, dim if features is None else 2 * dim)
        self._run(
            "embed",
            (rows * size,),
            4,
            ids.contiguous(),
            pos.contiguous(),
            prefix,
            table,
            features,
            out,
            prefix.stride(0),
            prefix.stride(1),
            size,
            shift,
            W=width,
            C=dim,
            CB=power(dim),
            BLANK=blank,
        )
        return out

    def normalise(self, x: Tensor, gain: Tensor, eps: float, more: Tensor | None = None) -> Tensor:
        """Return RMSNorm of x [M, K] as a new tensor; `more` is first added to x in place."""
        out = torch.empty_like(x)
        rows, width = x.shape
        self._run("normalise", (rows,), 4, x, more, gain, out, eps, K=width, KB=power(width))
        return out

    def gated(self, y: Tensor, g: Tensor) -> Tensor:
        """Return silu(y) * g."""
        out = torch.empty_like(y)
        self._run("gated", (-(-y.numel() // 1024),), 4, y, g, out, y.numel(), B=1024)
        return out

    def product(self, x: Tensor, weights: WeightView, out: Tensor, residual: Tensor | None = None) -> Tensor:
        """Write the product of x T [M, K] and the weights to out [M, N], and return it.

        x is contiguous, M <= PRODUCT_MAX_ROWS. residual: T [M, N], may be out.
        """
        w, blocks = weights.w, self.blocks
        (rows, width), outputs = x.shape, w.shape[0]
        given = (x, weights.gain, w, weights.gate, weights.bias, residual, out)
        if rows <= GEMV_MAX_ROWS:
            deep = min(power(width), blocks.longest)
            lines = max(1, blocks.numbers // deep)
            self._run(
                "gemv_rows2",
                (-(-outputs // lines),),
                blocks.few_warps,
                *given,
                weights.eps,
                ROWS=rows,
                N=outputs,
                K=width,
                XB=power(width),
                BN=lines,
                BK=deep,
            )
            return out
        deep = (
            blocks.deep * 2 // w.element_size()
        )  # the block is limited in bytes: as many float32 numbers would not fit
        tiles, deeps = -(-outputs // blocks.columns), -(-width // deep)
        parts = 1 if weights.gate is not None else max(1, min(blocks.programs // tiles, deeps // 2))
        part = -(-deeps // parts) * deep
        parts = -(-width // part)
        scratch = x.new_empty(parts * PRODUCT_MAX_ROWS * outputs if parts > 1 else 0, dtype=torch.float32)
        arrived = self._zeros(tiles if parts > 1 else 1)
        self._run(
            "product",
            (tiles, parts),
            blocks.warps,
            *given,
            scratch,
            arrived,
            weights.eps,
            rows,
            N=outputs,
            K=width,
            PART=part,
            PARTS=parts,
            BM=PRODUCT_MAX_ROWS,
            BN=blocks.columns,
            BK=deep,
            num_stages=blocks.stages,
        )
        return out

    def attend(
        self,
        qkv: Tensor,
        heads: Heads,
        table: Tensor,
        pos: Tensor,
        start: Tensor | None,
        cache: tuple[Tensor, Tensor],
        shift: int,
    ) -> Tensor:
        """Return the attention [R * S, H * D] of qkv [R, S, (H + 2 KH) * D] and write the S positions into the cache.

        table: float32 [P, D/2, 2]. pos: int64 [R]. cache: k and v [R, KH, T, D].
        shift: added to a position before its angle is read.
        """
        rows, size = qkv.shape[:2]
        shared, groups, width, capacity = heads.shared, heads.groups, heads.size, cache[0].shape[2]
        block = max(16, power(width))
        chunk = 128 if block <= 64 else 64
        chunks = -(-capacity // chunk)
        lines = max(16, power(groups * size))
        programs = rows * shared
        out = qkv.new_empty(rows * size, shared * groups * width)
        sums = qkv.new_empty(programs * chunks * lines * width, dtype=torch.float32)
        tops = qkv.new_empty(programs * chunks * 2 * lines, dtype=torch.float32)
        first = None if start is None else start.contiguous()
        self._run(
            "attend",
            (programs, chunks),
            4,
            qkv,
            table,
            pos.contiguous(),
            first,
            heads.q_weight,
            heads.q_bias,
            heads.k_weight,
            heads.k_bias,
            *cache,
            out,
            sums,
            tops,
            self._zeros(programs),
            width**-0.5,
            heads.eps,
            capacity,
            table.shape[0],
            shift,
            S=size,
            KH=shared,
            G=groups,
            D=width,
            DB=block,
            QB=lines,
            SB=max(16, power(size)),
            CHUNK=chunk,
            HALF=heads.half,
            FROM_START=heads.from_start,
        )
        return out

    def _zeros(self, count: int) -> Tensor:
        """Return at least `count` zeroed counters.

        Smaller buffers stay allocated: a CUDA graph may hold their address.
        """
        if count > len(self._counters[-1]):
            self._counters.append(torch.zeros(power(count), dtype=torch.int32, device=self.device))
        return self._counters[-1]

    def _run(self, name: str, grid: tuple[int, ...], num_warps: int, *args: Any, **constants: Any) -> None:
        launch_on(self.device, name, kernel_of, grid, *args, **self._options(num_warps, constants))

    def _options(self, num_warps: int, constants: dict[str, Any]) -> dict[str, Any]:
        options = {"num_warps": num_warps, "PDL": self.pdl, "enable_fp_fusion": True, **constants}
        return {**options, "launch_pdl": True} if self.pdl else options


def kernel_of(name: str) -> Any:
    """Return a kernel by name. Raises ModuleNotFoundError without triton."""
    from coolsd_rt.backends.torch.triton import attention, kernels

    return getattr(attention if name == "attend" else kernels, name)
