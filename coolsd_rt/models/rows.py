"""The row head: guesses the target's next features along a row and those of the row below, in one step.

A pair is what is known of a decided token: the target's feature at the position before it, and the token's embedding.
Draft i of a round (from 0) is guessed from two places, both decided before the round:

- the row above: the pair of the token above it and the pair of that token's right neighbour, by `below`;
- the row itself: the pair of the last decided token, by `ahead[i]`, a matrix for each of the first `cfg.ahead` drafts.

The two guesses are added, x = below + ahead, then y = x + SwiGLU(RMSNorm(x)) is the guessed feature, and the target's
head gives its logits. They are added before the nonlinearity and not mixed as logits: one product with the target's
head instead of two, and the network may weigh one place by what it sees at the other. The first row of an image has
none above it, drafts behind `cfg.ahead` have no guess along the row; an absent guess adds nothing.

No draft depends on another draft of its round, so that Q of a round is a product of the distributions of its drafts.

Where it differs from its source, SSD (arXiv 2606.20543): a pair has the feature behind the target's final norm, which
is what engines give out, instead of before it (the length of the vector is lost, its direction is not); the two kinds
of guesses share one SwiGLU; the loss is on distributions (`coolsd_rt.train.objective`), not on features.

Knows its matrices; uses the target's embeddings and output head (frozen, not stored twice). Does not know sampling.
Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.models.config import LayerConfig
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.layers import FeedForward, RMSNorm
from coolsd_rt.models.row_config import RowConfig

__all__ = ["RowConfig", "RowHead"]


class RowHead(nn.Module):
    """Guesses for the drafts of a row."""

    def __init__(self, cfg: RowConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.ahead = nn.ModuleList([nn.Linear(2 * cfg.dim, cfg.dim) for _ in range(cfg.ahead)])
        self.below = nn.Linear(4 * cfg.dim, cfg.dim)
        self.norm = RMSNorm(cfg.dim, cfg.norm_eps)
        self.feed_forward = FeedForward(LayerConfig(cfg.dim, 1, cfg.ffn, cfg.norm_eps))

    def refined(self, x: Tensor) -> Tensor:
        """Return the guessed features of the summed guesses x [..., C]."""
        return x + cast(Tensor, self.feed_forward(self.norm(x)))

    def from_above(self, pairs: Tensor, neighbours: Tensor) -> Tensor:
        """Return the guesses [..., C] from the row above. Both arguments: pairs [..., 2C], of the token above and of
        its right neighbour; at the end of a row the neighbour is the first token of the next one."""
        return cast(Tensor, self.below(torch.cat([pairs, neighbours], dim=-1)))

    def along(self, last: Tensor, size: Tensor) -> Tensor:
        """Return the guesses [R, S, C] along the row from the pair [R, 1, 2C] of the last decided token.

        size: int64 [S], 0 .. S - 1. Guesses behind `ahead` are zeros.
        """
        guesses = torch.cat([head(last) for head in self.ahead], dim=1)
        return F.pad(guesses, (0, 0, 0, 1)).index_select(1, size.clamp(max=self.cfg.ahead))

    def step(
        self,
        target: Decoder,
        ids: Tensor,
        features: Tensor,
        end_ids: Tensor,
        end_features: Tensor,
        first_below: Tensor,
    ) -> Tensor:
        """Run one step of `contract.row_contract`: all drafts of a round. Returns logits float32 [R, S, V].

        ids int64 [R, S], features [R, S, C], end_ids int64 [R, 2], end_features [R, 2, C], first_below int64 [R].
        """
        table = target.tok_embeddings
        pairs = torch.cat([features, table(ids)], dim=-1)
        ends = torch.cat([end_features, table(end_ids)], dim=-1)
        below = self.from_above(pairs, torch.cat([pairs[:, 1:], ends[:, :1]], dim=1))
        size = torch.arange(ids.shape[1], device=ids.device)
        below = torch.where((size >= first_below[:, None])[..., None], below, torch.zeros_like(below))
        return target.logits(self.refined(below + self.along(ends[:, 1:], size)))
