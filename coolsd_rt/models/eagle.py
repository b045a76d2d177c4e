"""The EAGLE draft: one Llama layer that guesses the target's next feature from its last feature and next token.

Knows its layer and borrows the target's head, RoPE table and, unless it has one of its own, embeddings (frozen, not
stored twice). Does not know sampling. Source: EAGLE (Li et al., 2024), as LANTERN uses it on LlamaGen. Legend as in
`coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coolsd_rt.models.config import EagleConfig
from coolsd_rt.models.decoder import Decoder, embed
from coolsd_rt.models.layers import Cache, Layer, cached_step, causal_step, new_caches

__all__ = ["Eagle", "EagleConfig", "first_seen", "seen_prefix"]


def first_seen(cfg: EagleConfig, start: Tensor | None) -> Tensor | None:
    """The first position int64 [R] that the head sees: `start`, or 0 where it sees padding.

    The graph's input is read either way, so that the contract is one.
    """
    return start.clamp(max=0) if start is not None and cfg.sees_padding else start


def seen_prefix(cfg: EagleConfig, prefix: Tensor, table: nn.Embedding) -> Tensor:
    """What stands in the prefix's slots for the head, [R, W, C]: `prefix`, or code 0 of its table in each of them.

    The graph's input is read either way, so that the contract is one.
    """
    return torch.add(prefix * 0, table.weight[0]) if cfg.blank_prefix else prefix


class Eagle(nn.Module):
    """fc 2C -> C on cat(embedding of token t+1, feature t), then layers, mostly without input norm; no final norm.

    Row t of its cache belongs to feature t and token t+1, turned by the RoPE row of t+1; its output is the guess of
    feature t+1, and the target's head on it the distribution of token t+2.
    """

    def __init__(self, cfg: EagleConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.tok_embeddings = None if cfg.vocab is None else nn.Embedding(cfg.vocab, cfg.dim)
        self.fc = nn.Linear(2 * cfg.dim, cfg.dim)
        self.layers = nn.ModuleList([Layer(cfg.layer, cfg.input_norm) for _ in range(cfg.layers)])

    def forward(self, embedded: Tensor, features: Tensor, rope: Tensor) -> Tensor:
        """Teacher forcing from row 0 on: embedded [R, S, C] of tokens 1..S, features [R, S, C] of positions 0..S-1.

        rope: the target's table. Returns the guessed features of positions 1..S, [R, S, C]. Without padding.
        """
        x = self.fc(torch.cat([embedded, features], dim=-1))
        step = causal_step(rope, x.shape[1], shift=1)
        for layer in self.layers:
            x = layer(x, step)
        return torch.as_tensor(x)

    def step(
        self,
        target: Decoder,
        ids: Tensor,
        features: Tensor,
        pos: Tensor,
        prefix: Tensor,
        caches: Sequence[Cache],
        start: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One step of the contract; ids [R, S]: tokens at `pos + 1 + s`. Gives logits [R, S, V], features [R, S, C]."""
        table = self.table(target)
        embedded = embed(table, ids, pos + 1, seen_prefix(self.cfg, prefix, table))
        x = self.fc(torch.cat([embedded, features], dim=-1))
        capacity, from_start, start = caches[0].k.shape[2], target.cfg.rope.from_start, first_seen(self.cfg, start)
        step = cached_step(target.rope, pos, ids.shape[1], capacity, shift=1, start=start, from_start=from_start)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, step, cache)
        return target.logits(x), x

    def table(self, target: Decoder) -> nn.Embedding:
        """The codes' embeddings: its own, or the target's."""
        return target.tok_embeddings if self.tok_embeddings is None else self.tok_embeddings

    def caches(self, rows: int, capacity: int) -> list[Cache]:
        """Zeroed caches for `rows` rows of `capacity` positions."""
        return new_caches(self.cfg.layer, self.cfg.layers, rows, capacity, self.fc.weight)
