"""A transformer layer in the words that ONNX has an operator for, with the weights of `models.layers`.

The eager networks say the same with indexed writes and paired rotations; here a step is RotaryEmbedding,
TensorScatter into the caches and Attention with a bool mask. Weights are kept as [in, out] and equal inputs share one
matrix, which is one node instead of three. Knows no embeddings, heads or sampling. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.export.ops import tensor_scatter
from coolsd_rt.models.config import Pairs
from coolsd_rt.models.layers import Attention, FeedForward, HeadNorm, Layer, RMSNorm, visible

Caches = tuple[Tensor, ...]  # k_0, v_0, k_1, v_1, ...


class At(NamedTuple):
    """Where a step's S positions stand, shared by all layers: first slot int64 [R], RoPE rows int64 [R, S] and, for
    cached attention, what each position sees, bool [R, 1, S, T]."""

    pos: Tensor
    turn: Tensor
    mask: Tensor


class Angles(nn.Module):
    """The RoPE table as two initializers. from_start: its rows count from each row's first position."""

    cos: Tensor
    sin: Tensor

    def __init__(self, table: Tensor, pairs: Pairs = "interleaved", from_start: bool = False) -> None:
        super().__init__()
        self.interleaved, self.from_start = pairs == "interleaved", from_start
        self.register_buffer("cos", table[..., 0].clone())
        self.register_buffer("sin", table[..., 1].clone())

    def turn(self, x: Tensor, rows: Tensor) -> Tensor:
        """x [R, H, S, D] turned by the table's rows int64 [R, S]."""
        return torch.onnx.ops.rotary_embedding(x, self.cos, self.sin, rows, interleaved=self.interleaved)

    def rows(self, slots: Tensor, start: Tensor | None) -> Tensor:
        """The table's rows of positions int64 [R, S]. Past its end the last is read: only padding stands there."""
        if start is not None and self.from_start:
            slots = (slots - start[:, None]).clamp(min=0)
        return slots.clamp(max=self.cos.shape[0] - 1)

    def at(self, pos: Tensor, size: int, capacity: int, shift: int = 0, start: Tensor | None = None) -> At:
        slots = pos[:, None] + torch.arange(size)
        return At(pos, self.rows(slots + shift, start), visible(slots, capacity, start))


class Matrix(nn.Module):
    """x @ [in, out]: one MatMul, in the layout that weight-only precision wants."""

    def __init__(self, *weights: Tensor) -> None:
        """Weights [out, in] of linear layers with one input."""
        super().__init__()
        self.weight = nn.Parameter(torch.cat(weights).detach().T.contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class RmsNorm(nn.Module):
    """RMSNormalization with its scale."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(norm.weight.detach(), requires_grad=False), norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class HeadNormBlock(nn.Module):
    """qk-norm of queries and keys at once; the query's share takes the scale of its scores."""

    def __init__(self, q: HeadNorm, k: HeadNorm, scale: float) -> None:
        super().__init__()
        weight, bias = torch.cat([q.weight * scale, k.weight]), torch.cat([q.bias * scale, k.bias])
        self.weight = nn.Parameter(weight.detach()[:, None], requires_grad=False)
        self.bias = nn.Parameter(bias.detach()[:, None], requires_grad=False)
        self.eps = q.eps

    def forward(self, x: Tensor) -> Tensor:
        """[R, H, S, D] -> the same."""
        return F.layer_norm(x, (x.shape[-1],), eps=self.eps) * self.weight + self.bias


class AttentionBlock(nn.Module):
    """Attention of new positions to a cache that they were just written into.

    The scale D^-0.5 is in the query's weights, or in its norm's: ONNX Runtime has a fast product of one query with all
    keys for a scale of 1 alone.
    """

    def __init__(self, source: Attention, angles: Angles) -> None:
        super().__init__()
        self.heads, self.shared, self.size = source.cfg.heads, source.cfg.cache_heads, source.cfg.head_dim
        parts = (self.heads * self.size, self.shared * self.size, self.shared * self.size)
        q, k, v = source.wqkv.weight.split(parts)
        scale, q_norm, k_norm = float(self.size) ** -0.5, source.q_norm, source.k_norm
        self.norm: nn.Module = nn.Identity()
        if isinstance(q_norm, HeadNorm) and isinstance(k_norm, HeadNorm):
            self.norm, scale = HeadNormBlock(q_norm, k_norm, scale), 1.0
        self.wqkv, self.wo = Matrix(q * scale, k, v), Matrix(source.wo.weight)
        self.angles = angles

    def qkv(self, x: Tensor, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[R, S, C] -> q [R, Hq, S, D] (turned, scaled), k (turned), v, each [R, H, S, D]."""
        heads = self.wqkv(x).unflatten(-1, (self.heads + 2 * self.shared, -1)).transpose(1, 2)
        return self._turned(heads, turn)

    def qkv_one(self, x: Tensor, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for S = 1, where no axes have to change places: [R, 1, C], turn [R, 1]."""
        return self._turned(self.wqkv(x).view(-1, self.heads + 2 * self.shared, 1, self.size), turn)

    def _turned(self, heads: Tensor, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qk, v = heads.split((self.heads + self.shared, self.shared), dim=1)
        q, k = self.angles.turn(self.norm(qk), turn).split((self.heads, self.shared), dim=1)
        return q, k, v

    def join_one(self, y: Tensor) -> Tensor:
        """[R, Hq, 1, D], or with queries that share keys together [R, H, Hq / H, D] -> [R, 1, C]."""
        return cast(Tensor, self.wo(y.reshape(-1, 1, self.wo.weight.shape[0])))

    def join(self, y: Tensor) -> Tensor:
        """[R, Hq, S, D] -> [R, S, C]."""
        return cast(Tensor, self.wo(y.transpose(1, 2).flatten(2)))

    def forward(self, x: Tensor, at: At, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k_new, v_new = self.qkv(x, at.turn)
        k, v = tensor_scatter(k, k_new, at.pos), tensor_scatter(v, v_new, at.pos)
        shared = self.shared != self.heads
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=at.mask, scale=1.0, enable_gqa=shared)
        return self.join(y), k, v


class FeedForwardBlock(nn.Module):
    """SwiGLU with w1 and w3 in one matrix."""

    def __init__(self, source: FeedForward) -> None:
        super().__init__()
        self.w13, self.w2 = Matrix(source.w1.weight, source.w3.weight), Matrix(source.w2.weight)
        self.width = source.w1.out_features

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w13(x).split((self.width, self.width), dim=-1)
        return cast(Tensor, self.w2(F.silu(gate) * up))


class LayerBlock(nn.Module):
    """One layer; an EAGLE layer has no norm before its attention."""

    def __init__(self, source: Layer, angles: Angles) -> None:
        super().__init__()
        norm = source.attention_norm
        self.attention_norm = RmsNorm(norm) if isinstance(norm, RMSNorm) else nn.Identity()
        self.attention = AttentionBlock(source.attention, angles)
        self.ffn_norm, self.feed_forward = RmsNorm(source.ffn_norm), FeedForwardBlock(source.feed_forward)

    def forward(self, x: Tensor, at: At, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, k, v = self.attention(self.attention_norm(x), at, k, v)
        return self.after(x + y), k, v

    def after(self, x: Tensor) -> Tensor:
        """The residual branch behind attention."""
        return x + cast(Tensor, self.feed_forward(self.ffn_norm(x)))


class Stack(nn.Module):
    """All layers of a model over their caches."""

    def __init__(self, layers: Sequence[nn.Module], angles: Angles) -> None:
        super().__init__()
        self.layers = nn.ModuleList([LayerBlock(cast(Layer, layer), angles) for layer in layers])

    def forward(self, x: Tensor, at: At, caches: Caches) -> tuple[Tensor, Caches]:
        out: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            x, k, v = layer(x, at, caches[2 * i], caches[2 * i + 1])
            out += [k, v]
        return x, tuple(out)
