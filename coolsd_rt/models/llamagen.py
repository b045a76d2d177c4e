"""The LlamaGen target: a Llama over a condition prefix and image codes, with 2-D RoPE.

Knows embeddings, layers and the head. Does not know text (see `conditions`), sampling or files. Parameter names are
those of the published LlamaGen checkpoints. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Cache, Layer, LayerConfig, RMSNorm, cached_step, causal_step, new_caches, rope_table


@dataclass(frozen=True)
class LlamaGenConfig:
    """Sizes of a target. `words` is the size of the word vocabulary of its condition."""

    vocab: int
    dim: int
    layers: int
    heads: int
    ffn: int
    grid: int
    prefix: int
    words: int
    word_dim: int
    norm_eps: float = 1e-5
    rope_base: float = 1e4
    prefix_rope: Literal["zero", "identity"] = "zero"

    @property
    def layer(self) -> LayerConfig:
        return LayerConfig(self.dim, self.heads, self.ffn, self.norm_eps)

    @property
    def tokens(self) -> int:
        return self.grid * self.grid


class WordEmbedder(nn.Module):
    """Word ids to prefix embeddings: a lookup, then LlamaGen's caption MLP (tanh-GELU, no biases)."""

    def __init__(self, cfg: LlamaGenConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(cfg.words, cfg.word_dim)
        self.cap_proj = nn.ModuleDict(
            {
                "fc1": nn.Linear(cfg.word_dim, cfg.dim, bias=False),
                "fc2": nn.Linear(cfg.dim, cfg.dim, bias=False),
            }
        )

    def forward(self, words: Tensor) -> Tensor:
        """int64 [R, W] -> float [R, W, C]."""
        y: Tensor = self.cap_proj["fc2"](F.gelu(self.cap_proj["fc1"](self.embedding(words)), approximate="tanh"))
        return y


class LlamaGen(nn.Module):
    """Target network. Training calls `forward`; everything else steps with caches."""

    rope: Tensor

    def __init__(self, cfg: LlamaGenConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.cls_embedding = WordEmbedder(cfg)
        self.tok_embeddings = nn.Embedding(cfg.vocab, cfg.dim)
        self.layers = nn.ModuleList([Layer(cfg.layer) for _ in range(cfg.layers)])
        self.norm = RMSNorm(cfg.dim, cfg.norm_eps)
        self.output = nn.Linear(cfg.dim, cfg.vocab, bias=False)
        table = rope_table(cfg.grid, cfg.prefix, cfg.layer.head_dim, cfg.rope_base, cfg.prefix_rope)
        self.register_buffer("rope", table, persistent=False)

    def condition(self, words: Tensor) -> Tensor:
        """int64 [R, W] -> prefix embeddings [R, W, C]."""
        return cast(Tensor, self.cls_embedding(words))

    def forward(self, words: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing over a whole picture.

        words int64 [R, W], codes int64 [R, tokens] -> logits [R, tokens, V] (entry i predicts codes[:, i]) and
        features [R, W - 1 + tokens, C] of positions 0 .. W + tokens - 2.
        """
        x = torch.cat([self.condition(words), self.tok_embeddings(codes[:, :-1])], dim=1)
        step = causal_step(self.rope, x.shape[1])
        for layer in self.layers:
            x = layer(x, step)
        features = self.norm(x)
        return self.output(features[:, self.cfg.prefix - 1 :]), features

    def embed(self, ids: Tensor, pos: Tensor, prefix: Tensor) -> Tensor:
        """Embeddings of S tokens at positions `pos + s`: from `prefix` below W, from the codes' table from W on.

        ids int64 [R, S], pos int64 [R], prefix float [R, W, C] -> float [R, S, C].
        """
        where = pos[:, None] + torch.arange(ids.shape[1], device=ids.device)
        row = torch.arange(ids.shape[0], device=ids.device)[:, None]
        before = prefix[row, where.clamp(max=self.cfg.prefix - 1)]
        return torch.where((where < self.cfg.prefix).unsqueeze(-1), before, self.tok_embeddings(ids))

    def step(
        self, ids: Tensor, pos: Tensor, prefix: Tensor, caches: Sequence[Cache], start: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One step of the contract: ids [R, S], pos [R], prefix [R, W, C] -> logits [R, S, V], features [R, S, C]."""
        x = self.embed(ids, pos, prefix)
        step = cached_step(self.rope, pos, ids.shape[1], caches[0].k.shape[2], start=start)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, step, cache)
        features = self.norm(x)
        return self.output(features).float(), features

    def caches(self, rows: int, capacity: int) -> list[Cache]:
        """Zeroed caches for `rows` rows of `capacity` positions."""
        return new_caches(self.cfg.layer, self.cfg.layers, rows, capacity, self.output.weight)
