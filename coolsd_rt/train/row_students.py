"""Logits of a row head along given images, for rounds that begin at every token.

Depth d is draft d of a round: its guess along the row is made d + 1 tokens before the token that it guesses. Knows the
head and positions. Does not know losses or laws. Legend as in `coolsd_rt.train.students`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coolsd_rt.arrays import Ints
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.rows import RowHead
from coolsd_rt.runtime.row_lengths import row_lengths
from coolsd_rt.train.students import Along, Example, FeatureCache, guided_logits


class RowStudent:
    """A row head on the target's features; the target's output head computes logits from its guesses."""

    def __init__(self, head: RowHead, target: Decoder, memory: FeatureCache | None = None) -> None:
        self.network, self.target, self.memory = head, target, memory or FeatureCache()

    def along(self, example: Example, steps: int, noise: Tensor | None = None) -> Along:
        """Return logits along the images; see `Student.along`. `noise` is ignored."""
        target, head, codes = self.target, self.network, example.both()
        with torch.no_grad():
            features = self.memory.features(target, example)[:, target.cfg.prefix - 1 :]
            wanted = guided_logits(target, features, example.scale)
            pairs = torch.cat([features, target.tok_embeddings(codes)], dim=-1)  # pair k is of token k
        below = self._below(pairs, 1)
        drafts: list[Tensor] = []
        for depth in range(steps):
            if depth > head.cfg.ahead and depth + 1 < head.cfg.row:
                drafts.append(drafts[-1])  # from the row above alone: the same wherever the round began
                continue
            x = below if depth + 1 < head.cfg.row else self._below(pairs, 0)
            if depth < head.cfg.ahead:
                x = x + _later(head.ahead[depth](pairs), depth + 1)
            drafts.append(guided_logits(target, head.refined(x), example.scale))
        nothing = wanted.new_zeros(())
        return Along(0, wanted, drafts, [nothing] * steps, self._valid(steps).to(codes.device))

    @property
    def most(self) -> Ints:
        """The most drafts of a round that begins at each token, int64 [N]."""
        return row_lengths(np.arange(self.target.cfg.tokens), self.network.cfg.row, self.network.cfg.ahead)

    def _below(self, pairs: Tensor, beside: int) -> Tensor:
        """Return the guesses of all tokens [R, N, C] from the row above, zeros in the first row.

        beside: 1: the second pair is of the right neighbour; 0: of the token above itself, for the last draft of a
        round that begins with its row: the neighbour is the pending token's, which has no feature yet.
        """
        guesses = self.network.from_above(pairs, torch.cat([pairs[:, beside:], pairs[:, :beside]], dim=1))
        return _later(guesses, self.network.cfg.row)

    def _valid(self, steps: int) -> Tensor:
        """Return bool [steps, N]: whether a round that began `depth` tokens before a token drafts it."""
        depth = np.arange(steps)[:, None]
        begin = np.arange(self.target.cfg.tokens) - depth
        return torch.from_numpy((begin >= 1) & (depth < self.most[np.maximum(begin, 0)]))


def _later(x: Tensor, by: int) -> Tensor:
    """Move the entries of x [R, N, C] `by` tokens on; zeros stand before them."""
    return F.pad(x, (0, 0, by, 0))[:, : x.shape[1]]
