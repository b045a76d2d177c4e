"""The EAGLE head: one Llama layer that predicts the target's next feature from its last feature and the next token.

Knows its layer, and uses the target's head, RoPE table and, unless it has a table of embeddings, the target's
embeddings (frozen, not stored twice). Does not know sampling. Source: EAGLE (Li et al., 2024), as LANTERN uses it on
LlamaGen. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.models.config import EagleConfig
from coolsd_rt.models.decoder import Decoder, MlpHead, embed, spread
from coolsd_rt.models.layers import Cache, Layer, Tree, cached_step, causal_step, new_caches

__all__ = ["Eagle", "EagleConfig", "first_seen", "seen_prefix"]


def first_seen(cfg: EagleConfig, start: Tensor | None) -> Tensor | None:
    """Return the first position that the head attends to, int64 [R]: `start`, or 0 if it attends to padding.

    `start` is read in both cases, so that all graphs have the same inputs.
    """
    return start.clamp(max=0) if start is not None and cfg.sees_padding else start


def seen_prefix(cfg: EagleConfig, prefix: Tensor, table: nn.Embedding) -> Tensor:
    """Return the prefix embeddings that the head uses, [R, W, C]: `prefix`, or code 0 of its table at each position.

    `prefix` is read in both cases, so that all graphs have the same inputs.
    """
    return torch.add(prefix * 0, table.weight[0]) if cfg.blank_prefix else prefix


class Eagle(nn.Module):
    """fc 2C -> C on cat(embedding of token t+1, feature t), then layers, usually without input norm; no final norm.

    Row t of its cache belongs to feature t and token t+1, rotated by the RoPE row of t+1. Its output predicts feature
    t+1, to which the target's head is applied for the distribution of token t+2.

    draft_ids: int32 [K], the tokens that it drafts, in rising order; None: all of the target's.
    """

    def __init__(self, cfg: EagleConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.tok_embeddings = None if cfg.vocab is None else nn.Embedding(cfg.vocab, cfg.dim)
        self.fc = nn.Linear(2 * cfg.dim, cfg.dim)
        self.layers = nn.ModuleList([Layer(cfg.layer, cfg.input_norm) for _ in range(cfg.layers)])
        self.draft_ids: Tensor | None
        ids = None if cfg.draft_vocab is None else torch.arange(cfg.draft_vocab, dtype=torch.int32)
        self.register_buffer("draft_ids", ids)

    def forward(self, embedded: Tensor, features: Tensor, rope: Tensor) -> Tensor:
        """Run teacher forcing from row 0 on, without padding.

        embedded: [R, S, C] of tokens 1..S.
        features: [R, S, C] of positions 0..S-1.
        rope: the target's table.

        Returns the predicted features of positions 1..S, [R, S, C].
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
        tree: Tree | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run one step of the contract. ids [R, S]: tokens at positions `pos + 1 + s`, or `pos + 1 + tree.depth`.

        Returns logits [R, S, V] and features [R, S, C].
        """
        table = self.table(target)
        embedded = embed(table, ids, pos + 1, seen_prefix(self.cfg, prefix, table), tree)
        x = self.fc(torch.cat([embedded, features], dim=-1))
        capacity, from_start, start = caches[0].k.shape[2], target.cfg.rope.from_start, first_seen(self.cfg, start)
        step = cached_step(target.rope, pos, ids.shape[1], capacity, 1, start, from_start, tree)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, step, cache)
        return self.logits(target, x), x

    def logits(self, target: Decoder, features: Tensor) -> Tensor:
        """Return the logits of predicted features [R, S, C], float32 [R, S, V]; only `draft_ids` are ever drawn."""
        slots = self.slots(target.cfg.vocab)
        if slots is None:
            return target.logits(features)
        return spread(F.linear(features, self.head_rows(target)).float(), slots)

    def head_rows(self, target: Decoder) -> Tensor:
        """Return the rows of the target's head that the draft uses, [K, C]; the target's head is one matrix."""
        if isinstance(target.output, MlpHead):
            raise TypeError("a head of two layers has no rows")
        return target.output.weight if self.draft_ids is None else target.output.weight[self.draft_ids.long()]

    def slots(self, vocab: int) -> Tensor | None:
        """Return the index of each token among `draft_ids`, int64 [V], K for the others; None if all are drafted."""
        if self.draft_ids is None:
            return None
        count = len(self.draft_ids)
        slots = torch.full((vocab,), count, dtype=torch.int64, device=self.draft_ids.device)
        slots[self.draft_ids.long()] = torch.arange(count, device=slots.device)
        return slots

    def table(self, target: Decoder) -> nn.Embedding:
        """Return the embedding table of codes: the head's, or the target's if it has none."""
        return target.tok_embeddings if self.tok_embeddings is None else self.tok_embeddings

    def caches(self, rows: int, capacity: int) -> list[Cache]:
        """Return zeroed caches for `rows` rows of `capacity` positions."""
        return new_caches(self.cfg.layer, self.cfg.layers, rows, capacity, self.fc.weight)
