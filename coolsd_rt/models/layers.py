"""Layers that decoders and EAGLE heads share: norms, RoPE on a grid or a line, attention with a static cache, SwiGLU.

Knows one transformer layer. Does not know conditions, vocabularies or files. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.models.config import LayerConfig, Pairs


class Step(NamedTuple):
    """Positions of the S new tokens of each row, shared by all layers of one step.

    cos, sin: float32 [R or 1, 1, S, D/2].
    mask: bool [R, 1, S, T]; None for plain causal training without a cache.
    slots: int64 [R, S], the cache rows to write; None likewise.
    grouped: S is 1, and queries that share keys are taken together, so that no key is copied. For eager decoding: twice
    as fast on a CPU, equal up to rounding.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    slots: Tensor | None
    grouped: bool = False


class Cache(NamedTuple):
    """Keys and values of one layer, float [R, H, T, D], written in place."""

    k: Tensor
    v: Tensor


class Tree(NamedTuple):
    """How the S new positions of a step branch. A chain has depth 0, 1, 2, ... and a lower triangle.

    A position is still written to the cache row of its index in the step, not of its depth.
    depth: int64 [R, S], added to the step's first position: what the angle and the embedding are read at.
    seen: bool [R, S, S], whether position s attends to position j of the same step: its ancestors, and itself.
    """

    depth: Tensor
    seen: Tensor


def rope_table(
    grid: int, prefix: int, head_dim: int, base: float = 1e4, prefix_rope: Literal["zero", "identity"] = "zero"
) -> Tensor:
    """Return LlamaGen's 2-D RoPE table, float32 [prefix + grid*grid, D/2, 2] (cos, sin).

    Each axis has D/4 frequencies; the first half of the pairs is rotated by the row, the second by the column; image
    token 0 is cell (0, 0). Prefix rows `zero` (LlamaGen's) turn every prefix query and key into zeros, so that all
    visible prefix keys score 0; `identity` leaves them unrotated.
    """
    freqs = base ** (-torch.arange(0, head_dim // 2, 2)[: head_dim // 4].double() / (head_dim // 2))
    cell = torch.arange(grid * grid)
    angles = torch.cat([(cell // grid)[:, None] * freqs, (cell % grid)[:, None] * freqs], dim=-1)
    image = torch.stack([angles.cos(), angles.sin()], dim=-1)
    head = torch.zeros(prefix, head_dim // 2, 2, dtype=torch.float64)
    if prefix_rope == "identity":
        head[..., 0] = 1.0
    return torch.cat([head, image]).float()


def line_table(positions: int, head_dim: int, base: float = 1e4) -> Tensor:
    """Return Llama's RoPE table of one axis, float32 [positions, D/2, 2] (cos, sin)."""
    freqs = base ** (-torch.arange(0, head_dim, 2).double() / head_dim)
    angles = torch.arange(positions)[:, None] * freqs
    return torch.stack([angles.cos(), angles.sin()], dim=-1).float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor, pairs: Pairs = "interleaved") -> Tensor:
    """Rotate the pairs of x [R, H, S, D] by cos, sin [R or 1, 1, S, D/2]."""
    if pairs == "half":
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).type_as(x)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2).type_as(x)


class RMSNorm(nn.Module):
    """RMSNorm computed in float32, cast back, then multiplied by the weight, as in LlamaGen."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x over its last dimension."""
        return F.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).type_as(x) * self.weight


class HeadNorm(nn.Module):
    """qk-norm: a LayerNorm over each head, with a weight and a bias [H, D]. Source: Chameleon."""

    eps = 1e-5

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, head_dim))
        self.bias = nn.Parameter(torch.zeros(heads, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each head of x [R, H, S, D]; the shape stays."""
        y = F.layer_norm(x, (x.shape[-1],), eps=self.eps)
        return torch.add(y * self.weight[:, None], self.bias[:, None])


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute causal attention of a training sequence explicitly.

    On a CPU, training is a quarter faster than with SDPA.
    """
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    future = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    return torch.softmax(scores.masked_fill(future, float("-inf")), dim=-1).type_as(v) @ v


class Attention(nn.Module):
    """Attention with fused qkv, order q|k|v, no biases; several query heads may share keys and values."""

    def __init__(self, cfg: LayerConfig) -> None:
        super().__init__()
        self.cfg = cfg
        heads, shared, size = cfg.heads, cfg.cache_heads, cfg.head_dim
        self.wqkv = nn.Linear(cfg.dim, (heads + 2 * shared) * size, bias=False)
        self.wo = nn.Linear(heads * size, cfg.dim, bias=False)
        self.q_norm: nn.Module = HeadNorm(heads, size) if cfg.qk_norm else nn.Identity()
        self.k_norm: nn.Module = HeadNorm(shared, size) if cfg.qk_norm else nn.Identity()

    def forward(self, x: Tensor, step: Step, cache: Cache | None) -> Tensor:
        """Attend from x [R, S, C] to the cache, after writing the new keys and values into it; return [R, S, C].

        cache: None for training, then attention covers x itself.
        """
        heads, shared = self.cfg.heads, self.cfg.cache_heads
        qkv = self.wqkv(x).unflatten(-1, (heads + 2 * shared, -1)).transpose(1, 2)
        q, k, v = qkv.split((heads, shared, shared), dim=1)
        q = rotate(self.q_norm(q), step.cos, step.sin, self.cfg.pairs)
        k = rotate(self.k_norm(k), step.cos, step.sin, self.cfg.pairs)
        if cache is not None and step.slots is not None:
            row = torch.arange(x.shape[0], device=x.device)[:, None]
            cache.k.transpose(1, 2)[row, step.slots] = k.transpose(1, 2)
            cache.v.transpose(1, 2)[row, step.slots] = v.transpose(1, 2)
            k, v = cache.k, cache.v
        if step.grouped:
            y = F.scaled_dot_product_attention(q.unflatten(1, (shared, -1)).squeeze(3), k, v, attn_mask=step.mask)
            return torch.as_tensor(self.wo(y.flatten(1)[:, None]))
        if shared != heads:
            k, v = (t.repeat_interleave(heads // shared, dim=1) for t in (k, v))
        y = _causal(q, k, v) if step.mask is None else F.scaled_dot_product_attention(q, k, v, attn_mask=step.mask)
        out: Tensor = self.wo(y.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, cfg: LayerConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(cfg.dim, cfg.ffn, bias=False)
        self.w3 = nn.Linear(cfg.dim, cfg.ffn, bias=False)
        self.w2 = nn.Linear(cfg.ffn, cfg.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return w2(silu(w1 x) * w3 x) of x [..., C]."""
        y: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return y


class Layer(nn.Module):
    """One pre-norm transformer layer. EAGLE's has no norm before its attention (`input_norm=False`)."""

    def __init__(self, cfg: LayerConfig, input_norm: bool = True) -> None:
        super().__init__()
        self.attention, self.feed_forward = Attention(cfg), FeedForward(cfg)
        self.attention_norm: nn.Module = RMSNorm(cfg.dim, cfg.norm_eps) if input_norm else nn.Identity()
        self.ffn_norm = RMSNorm(cfg.dim, cfg.norm_eps)

    def forward(self, x: Tensor, step: Step, cache: Cache | None = None) -> Tensor:
        """Apply attention and the feed-forward network to x [R, S, C], each with a residual connection."""
        x = x + self.attention(self.attention_norm(x), step, cache)
        return torch.add(x, self.feed_forward(self.ffn_norm(x)))


def new_caches(cfg: LayerConfig, layers: int, rows: int, capacity: int, like: Tensor) -> list[Cache]:
    """Return zeroed caches [R, H, T, D], one per layer.

    A NaN in an unwritten row would spread through attention even where it is masked.
    """
    shape = (rows, cfg.cache_heads, capacity, cfg.head_dim)
    return [Cache(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(layers)]


def cached_step(
    table: Tensor,
    pos: Tensor,
    size: int,
    capacity: int,
    shift: int = 0,
    start: Tensor | None = None,
    from_start: bool = False,
    tree: Tree | None = None,
) -> Step:
    """Return the `Step` of `size` positions from `pos` int64 [R] on, against caches of `capacity` rows.

    table: float32 [positions, D/2, 2]; positions past its end read its last row: they hold only padding.
    shift: added to a position before its angle is read (an EAGLE head uses the angle of the next token).
    start: int64 [R], the first position of each row that is not padding; None: 0.
    from_start: whether angles count from `start`.
    tree: how the positions branch; None: a chain.
    """
    slots = pos[:, None] + torch.arange(size, device=pos.device)
    at = places(pos, size, tree)
    turn = at + shift - start[:, None] if from_start and start is not None else at + shift
    angle = table[turn.clamp(0, table.shape[0] - 1)].unsqueeze(1)
    mask = visible(at, capacity, start, None if tree is None else branches(pos, tree.seen, capacity))
    return Step(angle[..., 0], angle[..., 1], mask, slots)


def places(pos: Tensor, size: int, tree: Tree | None) -> Tensor:
    """Return the positions of a step in the image, int64 [R, S]: pos + depth, in a chain pos, pos + 1, ..."""
    return pos[:, None] + (torch.arange(size, device=pos.device) if tree is None else tree.depth)


def branches(pos: Tensor, seen: Tensor, capacity: int) -> Tensor:
    """Return which cache rows the positions of a tree attend to, bool [R, S, T]: all before `pos`, and those of `seen`.

    seen: bool [R, S, S], as in `Tree`. Row pos + j holds position j of the step.
    """
    size = seen.shape[-1]
    index = torch.arange(capacity, device=pos.device) - pos[:, None]
    own = seen.gather(2, index.clamp(0, size - 1)[:, None].expand(-1, size, -1))
    return (index < 0)[:, None] | (own & (index < size)[:, None])


def visible(at: Tensor, capacity: int, start: Tensor | None, branch: Tensor | None = None) -> Tensor:
    """Return which cache rows the positions `at` int64 [R, S] attend to: from `start` [R] to themselves.

    branch: bool [R, S, T], what they attend to instead in a tree (`branches`), from `start` on too.

    The mask is bool [R, 1, S, T]. Padding attends to the padding up to itself: a softmax over nothing would give NaN,
    which would spread to rows that mask it. Heads that attend to padding were also trained on features made in this way
    (LANTERN's, in bfloat16).
    """
    at = at[:, None, :, None]
    cells = torch.arange(capacity, device=at.device)
    if start is None:
        return cells <= at if branch is None else branch[:, None]
    first = start[:, None, None, None]
    return (cells <= at if branch is None else branch[:, None]) & (cells >= first * (at >= first))


def causal_step(
    table: Tensor, size: int, shift: int = 0, start: Tensor | None = None, from_start: bool = False
) -> Step:
    """Return the `Step` of a whole training sequence from position 0 on, without a cache.

    start, from_start: as in `cached_step`.
    """
    if start is None:
        angle = table[shift : shift + size][None, None]
        return Step(angle[..., 0], angle[..., 1], None, None)
    return cached_step(table, torch.zeros_like(start), size, size, shift, start, from_start)._replace(slots=None)
