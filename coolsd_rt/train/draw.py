"""Draws the target's images with the spec's sampling, by plain decoding in the same round, without a draft.

The codes are therefore distributed exactly as P, including forced tokens. Knows the eager target. Does not know the
text of prompts, or where codes are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import CoolsdError
from coolsd_rt.law import Law
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.families import model_dims
from coolsd_rt.prompts import Rows
from coolsd_rt.runtime.round import generate
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.state import capacity


class TargetSession:
    """A `runtime.interface.Session` of a target without a draft."""

    @torch.inference_mode()
    def __init__(self, target: Decoder, rows: Rows) -> None:
        self.dims: ModelDims = model_dims(target.cfg, None)
        self._target = target
        weight = target.tok_embeddings.weight
        self._prefix = target.condition(torch.as_tensor(rows.text, device=weight.device))
        start = torch.as_tensor(rows.start, device=weight.device)
        self._start = start if target.cfg.padded else None
        self._caches = target.caches(len(rows.text), capacity(self.dims, 0))

    def asarray(self, data: Any, dtype: str) -> Tensor:
        """Copy host data to the target's device."""
        return torch.as_tensor(data, dtype=getattr(torch, dtype), device=self._prefix.device)

    @torch.inference_mode()
    def target(self, ids: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step of the target; see `Session.target`."""
        return self._target.step(ids, pos, self._prefix, self._caches, self._start)

    def draft(self, ids: Tensor, features: Tensor | None, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Raise CoolsdError: there is no draft."""
        raise CoolsdError("a draft step", expected="a draft model", found="a target model alone")


def draw_codes(target: Decoder, rows: Rows, sampling: Sampling, seeds: Sequence[int]) -> Tensor:
    """Return codes int64 [M, N] of M images. An image depends only on its rows and its seed.

    rows: prefixes of the images, followed by the unconditional ones if the sampling is guided.
    """
    forced = target.cfg.layout.forced if not target.cfg.layout.plain else None
    made = generate(TargetSession(target, rows), Law(()), sampling, seeds, forced)
    return torch.from_numpy(made.codes)
