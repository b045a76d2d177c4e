"""The network of every target: a Llama over a condition prefix and an image's tokens.

A family's config selects its forms (`coolsd_rt.models.config`); no code here depends on a family's name. Knows
embeddings, layers and the head. Does not know text (see `embedders`, `coolsd_rt.prompts`), sampling or files. Parameter
names are those of the published LlamaGen checkpoints. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.models.config import DecoderConfig
from coolsd_rt.models.embedders import Embedder, SharedEmbedder, make_embedder
from coolsd_rt.models.layers import (
    Cache,
    Layer,
    RMSNorm,
    Tree,
    cached_step,
    causal_step,
    line_table,
    new_caches,
    places,
    rope_table,
)

CLOSED = 200.0
"""Distance below the largest logit of ids that can only be forced: exp(-200) is 0 in float32.

Minus infinity would give NaN after CFG. A distance relative to the largest logit survives CFG of any scale from 1 on.
"""


class MlpHead(nn.Module):
    """A head of two matrices with biases and a GELU between them. Source: Janus."""

    def __init__(self, dim: int, width: int, codes: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, width), nn.Linear(width, codes)

    @property
    def weight(self) -> Tensor:
        """Weight of the last matrix, [codes, width]."""
        return self.fc2.weight

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of features x [..., C], [..., codes]."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class TiedHead(nn.Module):
    """A head whose matrix is the table of embeddings of another module, which alone has the weights."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self._table = (table,)  # a tuple: a module here would register its weights a second time

    @property
    def weight(self) -> Tensor:
        """The table, [codes, C], as its owner has it now."""
        return self._table[0].weight

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of features x [..., C], [..., codes]."""
        return F.linear(x, self.weight)


def closed(logits: Tensor, vocab: int) -> Tensor:
    """Extend logits [..., codes] to [..., V]. Ids behind the image codes are never drawn, only forced (`layout`)."""
    more = vocab - logits.shape[-1]
    if not more:
        return logits
    floor = logits.max(dim=-1, keepdim=True).values - CLOSED
    return torch.cat([logits, floor.expand(*logits.shape[:-1], more)], dim=-1)


def spread(logits: Tensor, slots: Tensor) -> Tensor:
    """Extend logits [..., K] of chosen tokens to [..., V]; the other tokens are never drawn, as those of `closed`.

    slots: int64 [V], the index of each token among the chosen ones, K for a token that is not one of them.
    """
    floor = logits.max(dim=-1, keepdim=True).values - CLOSED
    return torch.cat([logits, floor], dim=-1).index_select(-1, slots)


def table_of(cfg: DecoderConfig) -> Tensor:
    """Return the RoPE table of a config, float32 [positions, D/2, 2]."""
    rope, head_dim = cfg.rope, cfg.layer.head_dim
    if rope.kind == "line":
        return line_table(cfg.prefix + cfg.tokens, head_dim, rope.base)
    return rope_table(rope.grid, cfg.prefix, head_dim, rope.base, rope.prefix_rope)


class Decoder(nn.Module):
    """The target network. Training calls `forward`; everything else steps with caches."""

    rope: Tensor

    def __init__(self, cfg: DecoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        codes = cfg.layout.codes
        own = None if cfg.one_table else make_embedder(cfg)
        self.tok_embeddings = nn.Embedding(cfg.vocab, cfg.dim)
        self.cls_embedding: Embedder = own or SharedEmbedder(self.tok_embeddings)
        self.layers = nn.ModuleList([Layer(cfg.layer) for _ in range(cfg.layers)])
        self.norm = RMSNorm(cfg.dim, cfg.norm_eps)
        self.output: nn.Linear | MlpHead | TiedHead
        if cfg.tied_head:
            self.output = TiedHead(self.tok_embeddings)
        elif cfg.head_width:
            self.output = MlpHead(cfg.dim, cfg.head_width, codes)
        else:
            self.output = nn.Linear(cfg.dim, codes, bias=False)
        self.make_table()

    def make_table(self) -> None:
        """Compute the RoPE table again: a network that was built without memory has none."""
        self.register_buffer("rope", table_of(self.cfg), persistent=False)

    def condition(self, given: Tensor) -> Tensor:
        """Return the prefix embeddings [R, W, C] of a condition: int64 [R, W], or float features [R, W, I]."""
        return cast(Tensor, self.cls_embedding(given))

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of features [R, S, C], float32 [R, S, V]."""
        return closed(self.output(features).float(), self.cfg.vocab)

    def forward(self, condition: Tensor, codes: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run teacher forcing over a whole image.

        condition: as in `condition`.
        codes: int64 [R, tokens].
        start: int64 [R], the first position that is not padding, if prefixes are padded.

        Returns logits [R, tokens, V] (entry i predicts codes[:, i]) and features [R, W - 1 + tokens, C] of positions 0
        .. W + tokens - 2.
        """
        features = self.hidden(condition, codes, start)
        return closed(self.output(features[:, self.cfg.prefix - 1 :]), self.cfg.vocab), features

    def hidden(self, condition: Tensor, codes: Tensor, start: Tensor | None = None) -> Tensor:
        """Return the features of `forward` alone. A text's prompt and its codes may have any length."""
        x = torch.cat([self.condition(condition), self.tok_embeddings(codes[:, :-1])], dim=1)
        step = causal_step(self.rope, x.shape[1], start=start, from_start=self.cfg.rope.from_start)
        for layer in self.layers:
            x = layer(x, step)
        return cast(Tensor, self.norm(x))

    def embed(self, ids: Tensor, pos: Tensor, prefix: Tensor, tree: Tree | None = None) -> Tensor:
        """Embed S tokens at positions `pos + s`, or as `tree` says: from `prefix` below W, from the codes from W on.

        ids int64 [R, S], pos int64 [R], prefix float [R, W, C] -> float [R, S, C].
        """
        return embed(self.tok_embeddings, ids, pos, prefix, tree)

    def step(
        self,
        ids: Tensor,
        pos: Tensor,
        prefix: Tensor,
        caches: Sequence[Cache],
        start: Tensor | None = None,
        tree: Tree | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run one step of the contract over ids int64 [R, S] from pos int64 [R] on, with prefix [R, W, C].

        tree: how the ids branch; None: a chain.

        Returns logits [R, S, V] and features [R, S, C].
        """
        features = self.advance(ids, pos, prefix, caches, start, tree=tree)
        return self.logits(features), features

    def advance(
        self,
        ids: Tensor,
        pos: Tensor,
        prefix: Tensor,
        caches: Sequence[Cache],
        start: Tensor | None = None,
        grouped: bool = False,
        tree: Tree | None = None,
    ) -> Tensor:
        """Return the features of `step` alone. grouped: as in `Step`, for a single id."""
        x = self.embed(ids, pos, prefix, tree)
        capacity, from_start = caches[0].k.shape[2], self.cfg.rope.from_start
        step = cached_step(self.rope, pos, ids.shape[1], capacity, start=start, from_start=from_start, tree=tree)
        if grouped:
            step = step._replace(grouped=True)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, step, cache)
        return cast(Tensor, self.norm(x))

    def caches(self, rows: int, capacity: int) -> list[Cache]:
        """Return zeroed caches for `rows` rows of `capacity` positions."""
        return new_caches(self.cfg.layer, self.cfg.layers, rows, capacity, self.output.weight)


def embed(table: nn.Embedding, ids: Tensor, pos: Tensor, prefix: Tensor, tree: Tree | None = None) -> Tensor:
    """Embed tokens as `Decoder.embed` does, with the table of codes as an argument."""
    width = prefix.shape[1]
    where = places(pos, ids.shape[1], tree)
    row = torch.arange(ids.shape[0], device=ids.device)[:, None]
    before = prefix[row, where.clamp(max=width - 1)]
    return torch.where((where < width).unsqueeze(-1), before, table(ids))
