"""A transformer layer whose operations each have an ONNX operator, with the weights of `models.layers`.

The eager networks use indexed writes and paired rotations. Here a step uses RotaryEmbedding, TensorScatter into the
caches, and Attention with a bool mask. Weights are kept as [in, out], and layers with the same input share one matrix,
which gives one node instead of three. Knows one layer. Does not know embeddings, heads or sampling. Legend as in
`coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.export.ops import branch_mask, tensor_scatter
from coolsd_rt.models.config import Pairs
from coolsd_rt.models.layers import Attention, FeedForward, HeadNorm, Layer, RMSNorm, Tree, places, visible

Caches = tuple[Tensor, ...]  # k_0, v_0, k_1, v_1, ...


class At(NamedTuple):
    """The positions of a step, shared by all layers.

    pos: int64 [R], the first cache slot of each row.
    turn: int64 [R, S], rows of the RoPE table.
    mask: bool [R, 1, S, T], the cache slots that each position attends to.
    """

    pos: Tensor
    turn: Tensor
    mask: Tensor


class Angles(nn.Module):
    """The RoPE table as two ONNX initializers. from_start: rows of the table count from each row's first position."""

    cos: Tensor
    sin: Tensor

    def __init__(self, table: Tensor, pairs: Pairs = "interleaved", from_start: bool = False) -> None:
        super().__init__()
        self.interleaved, self.from_start = pairs == "interleaved", from_start
        self.register_buffer("cos", table[..., 0].clone())
        self.register_buffer("sin", table[..., 1].clone())

    def turn(self, x: Tensor, rows: Tensor) -> Tensor:
        """Rotate x [R, H, S, D] by the rows int64 [R, S] of the table."""
        return torch.onnx.ops.rotary_embedding(x, self.cos, self.sin, rows, interleaved=self.interleaved)

    def rows(self, slots: Tensor, start: Tensor | None) -> Tensor:
        """Return the rows of the table for positions int64 [R, S].

        Positions past the end of the table read its last row: they hold only padding.
        """
        if start is not None and self.from_start:
            slots = (slots - start[:, None]).clamp(min=0)
        return slots.clamp(max=self.cos.shape[0] - 1)

    def at(
        self,
        pos: Tensor,
        size: int,
        capacity: int,
        shift: int = 0,
        start: Tensor | None = None,
        tree: Tree | None = None,
    ) -> At:
        """Return the `At` of `size` positions from `pos` int64 [R] on, against caches of `capacity` slots.

        shift: added to a position before its angle is read.
        start: int64 [R], the first position of each row that is not padding; None: 0.
        tree: how the positions branch; None: a chain.
        """
        where = places(pos, size, tree)
        branch = None
        if tree is not None:
            first = (where - tree.depth)[..., None]  # pos in the shape [R, S, 1], without a node that expands it
            branch = branch_mask(torch.arange(capacity) < first, tree.seen, pos)
        return At(pos, self.rows(where + shift, start), visible(where, capacity, start, branch))


class Matrix(nn.Module):
    """x @ weight with the weight as [in, out]: one MatMul, in the layout that weight-only quantisation needs."""

    def __init__(self, *weights: Tensor) -> None:
        """Join weights [out, in] of linear layers that share one input."""
        super().__init__()
        self.weight = nn.Parameter(torch.cat(weights).detach().T.contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x [..., in] @ weight, [..., out]."""
        return x @ self.weight


class RmsNorm(nn.Module):
    """RMSNormalization with its scale."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(norm.weight.detach(), requires_grad=False), norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x over its last dimension and multiply it by the scale."""
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class HeadNormBlock(nn.Module):
    """qk-norm of queries and keys in one operation. The attention scale is folded into the weights of the queries."""

    def __init__(self, q: HeadNorm, k: HeadNorm, scale: float) -> None:
        super().__init__()
        weight, bias = torch.cat([q.weight * scale, k.weight]), torch.cat([q.bias * scale, k.bias])
        self.weight = nn.Parameter(weight.detach()[:, None], requires_grad=False)
        self.bias = nn.Parameter(bias.detach()[:, None], requires_grad=False)
        self.eps = q.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each head of x [R, H, S, D]; the shape stays."""
        return F.layer_norm(x, (x.shape[-1],), eps=self.eps) * self.weight + self.bias


class AttentionBlock(nn.Module):
    """Attention of new positions over a cache that already contains them.

    The scale D^-0.5 is folded into the weights of the query, or of its norm: ONNX Runtime has a fast product of one
    query with all keys only for a scale of 1.
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
        """Project x [R, S, C] to q [R, Hq, S, D] (rotated, scaled), k [R, H, S, D] (rotated) and v [R, H, S, D]."""
        heads = self.wqkv(x).unflatten(-1, (self.heads + 2 * self.shared, -1)).transpose(1, 2)
        return self._turned(heads, turn)

    def qkv_one(self, x: Tensor, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project x [R, 1, C] as `qkv` does, for S = 1: a view replaces the transpose. turn: [R, 1]."""
        return self._turned(self.wqkv(x).view(-1, self.heads + 2 * self.shared, 1, self.size), turn)

    def _turned(self, heads: Tensor, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qk, v = heads.split((self.heads + self.shared, self.shared), dim=1)
        q, k = self.angles.turn(self.norm(qk), turn).split((self.heads, self.shared), dim=1)
        return q, k, v

    def join_one(self, y: Tensor) -> Tensor:
        """Project the attention output of one position to [R, 1, C].

        y: [R, Hq, 1, D], or [R, H, Hq / H, D] if queries share keys.
        """
        return cast(Tensor, self.wo(y.reshape(-1, 1, self.wo.weight.shape[0])))

    def join(self, y: Tensor) -> Tensor:
        """Project the attention output [R, Hq, S, D] to [R, S, C]."""
        return cast(Tensor, self.wo(y.transpose(1, 2).flatten(2)))

    def forward(self, x: Tensor, at: At, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Write k and v of x [R, S, C] into the caches [R, H, T, D] and attend.

        Returns the output [R, S, C] and both caches.
        """
        q, k_new, v_new = self.qkv(x, at.turn)
        k, v = tensor_scatter(k, k_new, at.pos), tensor_scatter(v, v_new, at.pos)
        shared = self.shared != self.heads
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=at.mask, scale=1.0, enable_gqa=shared)
        return self.join(y), k, v


class FeedForwardBlock(nn.Module):
    """SwiGLU with w1 and w3 joined in one matrix."""

    def __init__(self, source: FeedForward) -> None:
        super().__init__()
        self.w13, self.w2 = Matrix(source.w1.weight, source.w3.weight), Matrix(source.w2.weight)
        self.width = source.w1.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Return w2(silu(w1 x) * w3 x) of x [R, S, C]."""
        gate, up = self.w13(x).split((self.width, self.width), dim=-1)
        return cast(Tensor, self.w2(F.silu(gate) * up))


class LayerBlock(nn.Module):
    """One transformer layer. A layer of an EAGLE head has no norm before its attention."""

    def __init__(self, source: Layer, angles: Angles) -> None:
        super().__init__()
        norm = source.attention_norm
        self.attention_norm = RmsNorm(norm) if isinstance(norm, RMSNorm) else nn.Identity()
        self.attention = AttentionBlock(source.attention, angles)
        self.ffn_norm, self.feed_forward = RmsNorm(source.ffn_norm), FeedForwardBlock(source.feed_forward)

    def forward(self, x: Tensor, at: At, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Apply the layer to x [R, S, C]; return the output [R, S, C] and the updated caches k, v [R, H, T, D]."""
        y, k, v = self.attention(self.attention_norm(x), at, k, v)
        return self.after(x + y), k, v

    def after(self, x: Tensor) -> Tensor:
        """Apply the part of the layer after attention: the feed-forward network, with its residual connection."""
        return x + cast(Tensor, self.feed_forward(self.ffn_norm(x)))


class Stack(nn.Module):
    """All layers of a model with their caches."""

    def __init__(self, layers: Sequence[nn.Module], angles: Angles) -> None:
        super().__init__()
        self.layers = nn.ModuleList([LayerBlock(cast(Layer, layer), angles) for layer in layers])

    def forward(self, x: Tensor, at: At, caches: Caches) -> tuple[Tensor, Caches]:
        """Apply all layers to x [R, S, C]; return the output and the updated caches."""
        out: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            x, k, v = layer(x, at, caches[2 * i], caches[2 * i + 1])
            out += [k, v]
        return x, tuple(out)
