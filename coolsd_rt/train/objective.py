"""The loss of a draft: soft cross-entropy, TV(P, Q), and for EAGLE-1 the distance between features.

P and Q are the distributions that a round compares, after guidance and filters: TV(P, Q) is the rejection rate of
lossless decoding. The cross-entropy uses Q before filters, so that a code of P outside Q's filter still has a gradient.
Knows logits. Does not know networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from coolsd_rt.ops.logits import MIN_TEMPERATURE, process_logits
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.train.students import Along


@dataclass(frozen=True)
class Objective:
    """The terms of the loss.

    Attributes:
        sampling: its temperature and filters convert logits to P and Q.
        tv: weight of TV(P, Q), relative to the cross-entropy's 1.
        features: weight of the distance between features.
        decay: weight of depth d is decay ** d (EAGLE-3 uses 0.8).
    """

    sampling: Sampling
    tv: float = 1.0
    features: float = 0.2
    decay: float = 0.8

    def law(self, logits: Tensor) -> Tensor:
        """Convert guided logits [..., V] to float32 probabilities as `process_logits` does, but differentiably."""
        s = self.sampling
        scaled = logits / max(s.temperature, MIN_TEMPERATURE)
        if s.top_k or s.top_p < 1:
            with torch.no_grad():
                dropped = process_logits(logits.detach(), None, s.temperature, s.top_k, s.top_p) == 0
            scaled = scaled.masked_fill(dropped, float("-inf"))
        return torch.softmax(scaled, dim=-1)

    def loss(self, along: Along, free: Tensor) -> tuple[Tensor, list[float]]:
        """Return the loss, a scalar, and the mean TV(P, Q) of each depth.

        free: bool [N], tokens that are not forced.
        """
        free = free[along.first :]
        with torch.no_grad():
            p = self.law(along.target)
        temperature = max(self.sampling.temperature, MIN_TEMPERATURE)
        total, tvs = along.target.new_zeros(()), []
        for depth, (logits, smooth) in enumerate(zip(along.drafts, along.smooth, strict=True)):
            counts = free if along.valid is None else free & along.valid[depth]
            rows = counts.nonzero()[:, 0]
            rows = rows[rows >= depth]
            wanted, mine = p[:, rows], logits[:, rows]
            soft = -(wanted * torch.log_softmax(mine / temperature, dim=-1)).sum(-1).mean()
            tv = 0.5 * (wanted - self.law(mine)).abs().sum(-1).mean()
            total = total + self.decay**depth * (soft + self.tv * tv + self.features * smooth)
            tvs.append(tv.item())
        return total, tvs
