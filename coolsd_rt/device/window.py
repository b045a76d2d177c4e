"""The working memory of one round, as tensors of one device with fixed shapes and addresses.

Knows shapes. Does not know what fills them (`coolsd_rt.ops.gpu`) nor the state that outlives a round (`state`). Legend:
M images, R rows (2M under CFG: image m is rows m and M + m), N image tokens, L draft length, V codes. Positions count
the prefix; window index i counts from the first undecided token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from coolsd_rt.device.state import DeviceState


@dataclass
class DeviceWindow:
    """Tensors of a round. Its first operator, `window`, fills all but the drafts, which `draft_token` writes."""

    num_drafts: Tensor  # int64 [M] drafts that count
    u_draft: Tensor  # float32 [M, L]
    u_accept: Tensor  # float32 [M, L]
    u_resample: Tensor  # float32 [M, L + 1]
    scale: Tensor | None  # float32 [M, L + 1], under CFG
    forced: Tensor | None  # int64 [M, L + 1], -1 = free, where tokens are forced
    is_forced: Tensor | None  # bool [M, L]
    first: Tensor  # int64 [R, L + 1] ids of the draft's first step
    last: Tensor  # int64 [R] index of the last pending one of these
    pos: Tensor  # int64 [L + 1, R] positions of the draft's L steps, then of the target's
    ids: Tensor  # int64 [R, L + 1] ids of the target's step: the last decided token, the drafts
    token: Tensor  # int64 [R, 1] ids of the draft's next step
    drafts: Tensor  # int64 [M, L]
    q: Tensor  # float32 [M, L, V] the Q that each draft was drawn from
    peaks: Tensor | None  # float32 [M, L] largest probability of each Q, with pacing of drafts

    @staticmethod
    def empty(state: DeviceState, vocab: int, forced: bool, paced: bool) -> DeviceWindow:
        """Return a window of zeros on the device of `state`.

        forced: whether the request has forced tokens.
        paced: whether drafts end before a Q of low confidence.
        """
        images, rows, width = len(state.codes), len(state.features), state.features.shape[1]
        length = width - 1

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=state.codes.device)

        real = torch.float32
        many, wide = (images, length), (images, width)
        return DeviceWindow(
            zeros(images),
            zeros(*many, dtype=real),
            zeros(*many, dtype=real),
            zeros(*wide, dtype=real),
            zeros(*wide, dtype=real) if rows > images else None,
            zeros(*wide) if forced else None,
            zeros(*many, dtype=torch.bool) if forced else None,
            zeros(rows, width),
            zeros(rows),
            zeros(width, rows),
            zeros(rows, width),
            zeros(rows, 1),
            zeros(*many),
            zeros(*many, vocab, dtype=real),
            zeros(*many, dtype=real) if paced else None,
        )
