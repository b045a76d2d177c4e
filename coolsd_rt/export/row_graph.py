"""The graph of a row head: all drafts of a round from decided tokens, in one step without a cache.

Knows the network; inputs and outputs follow `coolsd_rt.contract.row_contract`. Does not know how a module becomes a
file, or how drafts are drawn.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.export.blocks import FeedForwardBlock, Matrix, RmsNorm
from coolsd_rt.export.graphs import Head
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.lazy import value
from coolsd_rt.models.rows import RowHead


class RowGraph(nn.Module):
    """One step of a row head: ids, features_in, end_ids, end_features, first_below -> logits.

    The matrices of all guesses along the row are one: a single product.
    """

    def __init__(self, draft: RowHead, target: Decoder) -> None:
        super().__init__()
        heads = [cast(nn.Linear, head) for head in draft.ahead]
        self.ahead_count, self.table = draft.cfg.ahead, target.tok_embeddings
        self.along, self.below = Matrix(*(value(head.weight) for head in heads)), Matrix(value(draft.below.weight))
        self.along_bias = nn.Parameter(torch.cat([value(head.bias) for head in heads]).detach(), requires_grad=False)
        self.below_bias = nn.Parameter(value(draft.below.bias).detach(), requires_grad=False)
        self.norm, self.feed_forward = RmsNorm(draft.norm), FeedForwardBlock(draft.feed_forward)
        self.head = Head(target)

    def forward(
        self, ids: Tensor, features_in: Tensor, end_ids: Tensor, end_features: Tensor, first_below: Tensor
    ) -> Tensor:
        """Return the logits of all drafts, float32 [R, S, V], as `RowHead.step`."""
        pairs = torch.cat([features_in, self.table(ids)], dim=-1)
        ends = torch.cat([end_features, self.table(end_ids)], dim=-1)
        beside = torch.cat([pairs, ends[:, :1]], dim=1)[:, 1:]
        below = self.below(torch.cat([pairs, beside], dim=-1)) + self.below_bias
        size = torch.arange(ids.shape[1])
        x = below * (size >= first_below[:, None]).unsqueeze(-1).to(below.dtype)
        along = (self.along(ends[:, 1]) + self.along_bias).unflatten(-1, (self.ahead_count, -1))
        x = x + F.pad(along, (0, 0, 0, 1)).index_select(1, size.clamp(max=self.ahead_count))
        return cast(Tensor, self.head(x + self.feed_forward(self.norm(x))))
