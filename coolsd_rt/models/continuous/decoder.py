"""The causal decoder of continuous tokens: the layers of `coolsd_rt.models.layers` over words and vectors.

A token enters by a linear map in the place of an embedding's row. Its feature at a position goes to the diffusion head,
which draws the token behind it. Knows the layers. Does not know how a token is drawn or noised, text, or files. Legend
as in `coolsd_rt.contract`; d is the number of channels of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from coolsd_rt.models.continuous.config import ContinuousConfig
from coolsd_rt.models.continuous.head import DiffusionHead
from coolsd_rt.models.embedders import WordEmbedder
from coolsd_rt.models.layers import Cache, Layer, RMSNorm, cached_step, causal_step, new_caches, places, rope_table


class ContinuousDecoder(nn.Module):
    """A target or a draft of continuous tokens. Training calls `hidden`; drawing steps with caches."""

    rope: Tensor

    def __init__(self, cfg: ContinuousConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.token_in = nn.Linear(cfg.channels, cfg.dim)
        self.cls_embedding = WordEmbedder(cfg)
        self.layers = nn.ModuleList([Layer(cfg.layer) for _ in range(cfg.layers)])
        self.norm = RMSNorm(cfg.dim, cfg.norm_eps)
        self.head = DiffusionHead(cfg)
        self.make_table()

    def make_table(self) -> None:
        """Compute the RoPE table again: a network that was built without memory has none."""
        cfg = self.cfg
        table = rope_table(cfg.grid, cfg.prefix, cfg.layer.head_dim, cfg.rope_base, cfg.prefix_rope)
        self.register_buffer("rope", table, persistent=False)

    def condition(self, words: Tensor) -> Tensor:
        """Return the prefix embeddings [R, W, C] of word ids int64 [R, W]."""
        return cast(Tensor, self.cls_embedding(words))

    def hidden(self, words: Tensor, tokens: Tensor) -> Tensor:
        """Return the features [R, N, C] of a whole image, by teacher forcing: entry i goes to the head for token i.

        words: int64 [R, W]. tokens: float [R, N, d], as a draw would leave them; the last one is not read.
        """
        x = torch.cat([self.condition(words), self.token_in(tokens[:, :-1])], dim=1)
        step = causal_step(self.rope, x.shape[1])
        for layer in self.layers:
            x = layer(x, step)
        return cast(Tensor, self.norm(x[:, self.cfg.prefix - 1 :]))

    def advance(self, tokens: Tensor, pos: Tensor, prefix: Tensor, caches: Sequence[Cache]) -> Tensor:
        """Return the features [R, S, C] of S new positions from pos int64 [R] on, and write them into the caches.

        tokens: float [R, S, d]; at positions below W the prefix float [R, W, C] is read in their place.
        """
        width = prefix.shape[1]
        where = places(pos, tokens.shape[1], None)
        row = torch.arange(len(tokens), device=tokens.device)[:, None]
        before = prefix[row, where.clamp(max=width - 1)]
        x = torch.where((where < width).unsqueeze(-1), before, self.token_in(tokens))
        step = cached_step(self.rope, pos, tokens.shape[1], caches[0].k.shape[2])
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, step, cache)
        return cast(Tensor, self.norm(x))

    def caches(self, rows: int, capacity: int) -> list[Cache]:
        """Return zeroed caches for `rows` rows of `capacity` positions."""
        return new_caches(self.cfg.layer, self.cfg.layers, rows, capacity, self.token_in.weight)
