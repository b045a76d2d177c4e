"""The loss of a draft: soft cross-entropy, TV(P, Q) itself, and for EAGLE-1 the distance of features.

P and Q are the laws that a round compares, after guidance and filters: TV(P, Q) is the rejection rate of lossless
decoding. The cross-entropy sees all of Q, so that a code of P that the filters would keep from Q still pulls. Knows
logits. Does not know networks.
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
    """sampling: its temperature and filters make P and Q of logits. tv, features: weights beside the cross-entropy's 1.
    decay: a depth's weight, to the power of the depth (EAGLE-3's 0.8)."""

    sampling: Sampling
    tv: float = 1.0
    features: float = 0.2
    decay: float = 0.8

    def law(self, logits: Tensor) -> Tensor:
        """Guided logits [..., V] -> probabilities float32, as `process_logits` makes them and with a gradient."""
        s = self.sampling
        scaled = logits / max(s.temperature, MIN_TEMPERATURE)
        if s.top_k or s.top_p < 1:
            with torch.no_grad():
                dropped = process_logits(logits.detach(), None, s.temperature, s.top_k, s.top_p) == 0
            scaled = scaled.masked_fill(dropped, float("-inf"))
        return torch.softmax(scaled, dim=-1)

    def loss(self, along: Along, free: Tensor) -> tuple[Tensor, list[float]]:
        """The loss, a scalar, and the mean TV(P, Q) of each depth. free: bool [N], tokens that are not forced."""
        free = free[along.first :]
        with torch.no_grad():
            p = self.law(along.target)
        temperature = max(self.sampling.temperature, MIN_TEMPERATURE)
        total, tvs = along.target.new_zeros(()), []
        for depth, (logits, smooth) in enumerate(zip(along.drafts, along.smooth, strict=True)):
            rows = free.nonzero()[:, 0]
            rows = rows[rows >= depth]
            wanted, mine = p[:, rows], logits[:, rows]
            soft = -(wanted * torch.log_softmax(mine / temperature, dim=-1)).sum(-1).mean()
            tv = 0.5 * (wanted - self.law(mine)).abs().sum(-1).mean()
            total = total + self.decay**depth * (soft + self.tv * tv + self.features * smooth)
            tvs.append(tv.item())
        return total, tvs
