"""Sessions of continuous tokens on eager PyTorch: the reference of `coolsd_rt.runtime.continuous`.

Knows the networks of `coolsd_rt.models.continuous`. Does not know rounds, prompts or files.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from coolsd_rt.arrays import Ints
from coolsd_rt.errors import UserError
from coolsd_rt.law.continuous import LastStep
from coolsd_rt.models.continuous.decoder import ContinuousDecoder
from coolsd_rt.models.continuous.head import Draws, Guided
from coolsd_rt.runtime.continuous.interface import Floats32, Noise, VectorSession, VectorSizes


class TorchVectorModel:
    """A decoder with caches, and its head."""

    def __init__(self, network: ContinuousDecoder, words: Tensor, room: int) -> None:
        """words: int64 [R, W], of each row. room: cache positions behind the image, for padding."""
        cfg = network.cfg
        self._network = network
        with torch.no_grad():
            self._prefix = network.condition(words)
        self._caches = network.caches(len(words), cfg.prefix + cfg.tokens + room)

    @torch.no_grad()
    def advance(self, tokens: Floats32, pos: Ints) -> Floats32:
        """See `VectorModel.advance`."""
        x = torch.from_numpy(np.ascontiguousarray(tokens)).to(self._prefix.dtype)
        return _host(self._network.advance(x, torch.from_numpy(np.ascontiguousarray(pos)), self._prefix, self._caches))

    @torch.no_grad()
    def last_step(self, features: Floats32, scale: Floats32 | None, noise: Noise) -> LastStep:
        """See `VectorModel.last_step`."""
        x = torch.from_numpy(np.ascontiguousarray(features)).to(self._prefix.dtype)
        half = len(x) if scale is None else len(x) // 2
        given = Guided(x) if scale is None else Guided(x[:half], x[half:], torch.from_numpy(scale))
        start, between = (torch.from_numpy(np.ascontiguousarray(part)) for part in noise)
        head = self._network.head
        mean, deviation = head.last_step(given, head.before_last(given, Draws(start, between, start)))
        return LastStep(_host(mean).astype(np.float64), _host(deviation).astype(np.float64))


def open_vectors(
    target: ContinuousDecoder, draft: ContinuousDecoder | None, words: Tensor, free: Tensor | None, length: int
) -> VectorSession:
    """Open a session of M images.

    words: int64 [M, W]. free: the same without captions, for CFG; None: no second rows. length: draft length.

    Raises UserError if target and draft do not have the same tokens or the same denoising steps.
    """
    if draft is not None:
        check_pair(target, draft)
    cfg, rows = target.cfg, words if free is None else torch.cat([words, free])
    sizes = VectorSizes(cfg.prefix, cfg.tokens, cfg.channels, target.head.process.steps)
    models = [None if network is None else TorchVectorModel(network, rows, length + 1) for network in (target, draft)]
    assert models[0] is not None
    return VectorSession(sizes, len(words), models[0], models[1])


def check_pair(target: ContinuousDecoder, draft: ContinuousDecoder) -> None:
    """Raise UserError unless a draft's tokens and noise are those of the target."""
    wanted, found = target.cfg, draft.cfg
    for name in ("prefix", "grid", "channels", "trained"):
        if getattr(wanted, name) != getattr(found, name):
            expected = f"the target's {getattr(wanted, name)}"
            raise UserError(f"the draft's {name}", expected=expected, found=str(getattr(found, name)))
    steps, own = target.head.process.steps, draft.head.process.steps
    if steps != own:
        raise UserError("the draft's denoising steps", expected=f"the target's {steps}", found=str(own))


def _host(x: Tensor) -> Floats32:
    return np.asarray(x.float().cpu().numpy(), np.float32)
