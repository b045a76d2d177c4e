"""The diffusion head: an MLP with adaptive norms that denoises one token under the decoder's feature of its position.

Its last step is a Gaussian N(mean, s^2 I): the mean is the clean token that the head predicts, s is `ContinuousConfig.
last`. That Gaussian is what `coolsd_rt.law.continuous` compares. All Gaussians are arguments, so that a target and a
draft can be given the same ones. Knows features and states. Does not know the decoder, positions, random numbers, or
what is accepted. Source of the form: MAR, arXiv 2406.11838; here time and feature modulate the norms in a sum, so that
what the feature gives is computed once a token and not once a step.

Shapes: R rows (a row is one position of one image), C width of a feature, d channels, H width of the head, K steps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coolsd_rt.models.continuous.config import ContinuousConfig
from coolsd_rt.models.continuous.denoising import Denoising

_FREQUENCIES = 32  # of the features of a time
_TIME_WIDTH = 128


class Guided(NamedTuple):
    """Features of R positions with and without their caption, and the scale of CFG between them.

    features: float [R, C]. free: float [R, C], of the rows without a caption; None: no guidance.
    scale: float [R]; v = v_free + scale (v - v_free), both of the same state. There with `free`, and not without.
    """

    features: Tensor
    free: Tensor | None = None
    scale: Tensor | None = None


class Draws(NamedTuple):
    """Standard normal numbers of R tokens: all but `last` are w, which a target and a draft share.

    start: float [R, d], the state at time T. between: float [R, K - 1, d], of the steps before the last one.
    last: float [R, d].
    """

    start: Tensor
    between: Tensor
    last: Tensor


class ModulatedBlock(nn.Module):
    """x + gate * MLP(norm(x) * (1 + scale) + shift)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        """Apply the block to x [..., H], with modulations [..., H]."""
        y = torch.addcmul(shift, F.layer_norm(x, (x.shape[-1],), eps=1e-6), 1 + scale)
        return torch.addcmul(x, gate, self.fc2(F.silu(self.fc1(y))))


class DiffusionHead(nn.Module):
    """Predicts v of a state, from its time and the feature of its position."""

    def __init__(self, cfg: ContinuousConfig) -> None:
        super().__init__()
        self.cfg, self.process = cfg, Denoising(cfg.trained, cfg.steps)
        self.parts = 3 * cfg.res_blocks + 2  # shift, scale and gate of a block; shift and scale of the last norm
        self.state_in = nn.Linear(cfg.channels, cfg.head)
        self.feature_in = nn.Linear(cfg.dim, cfg.head)
        self.by_feature = nn.Linear(cfg.head, self.parts * cfg.head, bias=False)
        self.time_in = nn.Linear(2 * _FREQUENCIES, _TIME_WIDTH)
        self.by_time = nn.Linear(_TIME_WIDTH, self.parts * cfg.head)
        self.blocks = nn.ModuleList([ModulatedBlock(cfg.head) for _ in range(cfg.res_blocks)])
        self.out = nn.Linear(cfg.head, cfg.channels)

    def set_steps(self, steps: int) -> None:
        """Draw in other steps than the config's, 1 to T: a quarter of the work with a quarter of them, another law."""
        self.process = Denoising(self.cfg.trained, steps)

    def modulations(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return what features [..., C] give to every step, for the input [..., H] and for the norms [..., P H]."""
        inner = self.feature_in(features)
        return inner, self.by_feature(F.silu(inner))

    def timed(self, time: Tensor) -> Tensor:
        """Return what times int64 [...] give to the norms, [..., P H]."""
        rates = torch.exp(torch.arange(_FREQUENCIES, device=time.device) * (-math.log(1e3) / (_FREQUENCIES - 1)))
        angles = time[..., None].float() * (1e3 / self.cfg.trained) * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.time_in.weight.dtype)
        y: Tensor = self.by_time(F.silu(self.time_in(waves)))
        return y

    def velocity(self, state: Tensor, timed: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
        """Return v [..., d] of states [..., d]; timed: of `timed`; given: of `modulations`."""
        inner, norms = given
        parts = [a + b for a, b in zip(norms.chunk(self.parts, -1), timed.chunk(self.parts, -1), strict=True)]
        x = self.state_in(state) + inner
        for i, block in enumerate(self.blocks):
            x = block(x, *parts[3 * i : 3 * i + 3])
        shift, scale = parts[-2:]
        y: Tensor = self.out(torch.addcmul(shift, F.layer_norm(x, (x.shape[-1],), eps=1e-6), 1 + scale))
        return y

    def forward(self, state: Tensor, time: Tensor, features: Tensor) -> Tensor:
        """Return v [..., d] of states [..., d] at times int64 [...], under features [..., C]. Training calls it."""
        return self.velocity(state, self.timed(time), self.modulations(features))

    def noised(self, clean: Tensor, time: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states of clean tokens [..., d] at times int64 [...], and the v that is to be predicted."""
        table = torch.tensor(self.process.table, dtype=torch.float32, device=clean.device)[time]
        a, b = table[..., :1], table[..., 1:]
        return a * clean + b * noise, a * noise - b * clean

    def before_last(self, given: Guided, draws: Draws) -> Tensor:
        """Return the states before the last step, float32 [R, d], from w: `draws.last` is not read."""
        prepared, state = self._prepare(given), draws.start
        for k, step in enumerate(self.process.before_last):
            v = self._guided(prepared, given.scale, state, step.time)
            clean = step.a * state - step.b * v
            state = step.of_clean * clean + step.of_state * state + step.deviation * draws.between[:, k]
        return state

    def last_step(self, given: Guided, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Gaussians of the last step from states [R, d]: means float32 [R, d] and deviations [R]."""
        time = self.process.last_time
        a, b = self.process.table[time]
        mean = a * state - b * self._guided(self._prepare(given), given.scale, state, time)
        return mean, torch.full_like(mean[:, 0], self.cfg.last)

    def draw(self, given: Guided, draws: Draws) -> Tensor:
        """Return tokens float32 [R, d]: the last step's Gaussian at `draws.last`."""
        mean, deviation = self.last_step(given, self.before_last(given, draws))
        return mean + deviation[:, None] * draws.last

    def _prepare(self, given: Guided) -> tuple[Tensor, Tensor]:
        """What features give to every step; the rows without a caption are behind those with one."""
        both = given.features if given.free is None else torch.cat([given.features, given.free])
        return self.modulations(both)

    def _guided(self, prepared: tuple[Tensor, Tensor], scale: Tensor | None, state: Tensor, time: int) -> Tensor:
        """v of the same states under both features, in one batch, mixed by CFG: float32 [R, d]."""
        timed = self.timed(torch.tensor(time, device=state.device))
        entered = state.to(self.out.weight.dtype)
        if scale is None:
            return self.velocity(entered, timed, prepared).float()
        v, free = self.velocity(entered.repeat(2, 1), timed, prepared).float().chunk(2)
        return free + scale[:, None] * (v - free)


def start_head(head: DiffusionHead) -> None:
    """Set initial weights: at first no norm is modulated by a feature, and v is 0."""
    nn.init.normal_(head.by_feature.weight, std=0.01)
    nn.init.normal_(head.by_time.weight, std=0.01)
    nn.init.zeros_(head.by_time.bias)
    nn.init.zeros_(head.out.weight)
    nn.init.zeros_(head.out.bias)
