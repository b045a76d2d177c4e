"""The state that a batch's rounds update, as tensors of one device with fixed shapes and addresses.

Knows counters, tokens and random numbers. Does not know models or probabilities. Legend: M images, R rows (2M under
CFG), W prefix length, N image tokens, L draft length, C model dim. Positions count the prefix.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from coolsd_rt.contract import ModelDims
from coolsd_rt.runtime.self_decoding import DecodeRequest
from coolsd_rt.runtime.statistics import Statistics


@dataclass
class DeviceState:
    """State of a batch.

    Between rounds `cached == committed - 1`, and the draft has not processed the last `num_pending` positions.
    """

    codes: Tensor  # int64 [M, N]
    committed: Tensor  # int64 [M] positions whose token is decided
    num_pending: Tensor  # int64 [M] positions that enter the draft with the next round, 1..L + 1
    draft_allowed: Tensor  # bool [M] whether pacing lets the next round draft
    features: Tensor  # [R, L + 1, C] the target's features of the pending positions, from column 0 on
    uniforms: Tensor  # float32 [M, N, L + 1, 3]
    scales: Tensor  # float32 [N] CFG scale of each image token
    forced: Tensor  # int64 [N], -1 = free
    omegas: Tensor  # float64 [L]
    rates: Tensor  # float64 [L], of the rule synthetic
    rounds: Tensor  # int64 [M]
    histogram: Tensor  # int64 [L + 1] rounds by number of accepted drafts
    attempts: Tensor  # int64 [L]
    accepts: Tensor  # int64 [L]
    degenerate: Tensor  # int64 [1]
    proposed: Tensor  # int64 [1] drafts that counted
    fault: Tensor  # int32 [M] bits of `coolsd_rt.ops.gpu`

    @staticmethod
    def empty(dims: ModelDims, images: int, rows: int, length: int, like: Tensor) -> DeviceState:
        """Return a state of zeros on the device of `like` [..., C], whose dtype the features get."""
        m, n, width = images, dims.tokens, length + 1

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=like.device)

        real = torch.float64
        return DeviceState(
            zeros(m, n),
            zeros(m),
            zeros(m),
            zeros(m, dtype=torch.bool),
            zeros(rows, width, like.shape[-1], dtype=like.dtype),
            zeros(m, n, width, 3, dtype=torch.float32),
            zeros(n, dtype=torch.float32),
            zeros(n),
            zeros(length, dtype=real),
            zeros(length, dtype=real),
            zeros(m),
            zeros(width),
            zeros(length),
            zeros(length),
            zeros(1),
            zeros(1),
            zeros(m, dtype=torch.int32),
        )

    def reset(self, request: DecodeRequest, tokens: int) -> None:
        """Prepare for the prefill of `request`: nothing is decided, its random numbers are in place.

        Addresses stay the same.
        """
        for field in fields(self):
            getattr(self, field.name).zero_()
        self.uniforms.copy_(torch.from_numpy(np.ascontiguousarray(request.uniforms)))
        self.scales.copy_(torch.from_numpy(request.sampling.scales(tokens)))
        self.forced.copy_(torch.from_numpy(np.full(tokens, -1) if request.forced is None else request.forced))
        self.omegas.copy_(torch.tensor(request.law.omegas, dtype=torch.float64))
        if request.law.rates is not None:
            self.rates.copy_(torch.tensor(request.law.rates, dtype=torch.float64))

    def statistics(self) -> Statistics:
        """Return the counts, on the host."""
        counts = (self.rounds, self.histogram, self.attempts, self.accepts)
        rounds, histogram, attempts, accepts = (part.cpu().numpy().copy() for part in counts)
        return Statistics(rounds, histogram, attempts, accepts, int(self.degenerate), draft_tokens=int(self.proposed))
