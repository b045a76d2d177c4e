"""The Gaussian of a continuous token's last denoising step, and the ratio of two of them.

A diffusion head draws a token x in R^d by denoising steps; given the state before the last step, x is a draw from
N(mean, deviation^2 I). Everything is computed in logs, so that 32 channels and distant means neither overflow nor
divide by zero. Knows NumPy arrays of float64. Does not know heads, guidance, or what is done with a ratio.

Legend: R rows (a row is one token of one image), d channels. Axes before R are samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from coolsd_rt.arrays import Bools, Floats64, Ints
from coolsd_rt.errors import CoolsdError

_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
_erfc = np.frompyfunc(math.erfc, 1, 1)


@dataclass(frozen=True)
class LastStep:
    """Gaussians N(mean, deviation^2 I) of R tokens.

    mean: float64 [R, d]. deviation: float64 [R], the standard deviation of each channel, above 0.

    Raises CoolsdError for other shapes, a deviation that is not above 0, and values that are not finite: a NaN would
    read as a rejection.
    """

    mean: Floats64
    deviation: Floats64

    def __post_init__(self) -> None:
        shapes = f"{self.mean.shape} and {self.deviation.shape}"
        if self.mean.ndim != 2 or self.deviation.shape != self.mean.shape[:1]:
            raise CoolsdError("the last step's mean and deviation", expected="shapes [R, d] and [R]", found=shapes)
        if not (np.isfinite(self.mean).all() and np.isfinite(self.deviation).all() and (self.deviation > 0).all()):
            raise CoolsdError(
                "the last step of a diffusion head",
                expected="finite means, and finite deviations above 0",
                found=f"deviations from {self.deviation.min()} to {self.deviation.max()}, or means that are not finite",
                fix="a sampler without noise in its last step has no density: give its last step a deviation",
            )

    def at(self, noise: Floats64) -> Floats64:
        """Return the tokens [..., R, d] of standard normal noise [..., R, d]."""
        return np.asarray(self.mean + self.deviation[:, None] * noise)

    def noise(self, x: Floats64) -> Floats64:
        """Return the noise [..., R, d] of tokens [..., R, d]: the inverse of `at`."""
        return np.asarray((x - self.mean) / self.deviation[:, None])

    def rows(self, which: Ints | Bools) -> LastStep:
        """Return the Gaussians of some rows, given by indices or by a mask."""
        return LastStep(self.mean[which], self.deviation[which])


@dataclass(frozen=True)
class RatioForm:
    """How log P(x)/Q(x) is computed. The default is the true ratio; every other form is a comparison, and biased.

    log_factor: added to the log ratio.
    temperature: divides the exponents of both Gaussians.
    squared: use the variance where the Gaussian has its standard deviation.
    """

    log_factor: float = 0.0
    temperature: float = 1.0
    squared: bool = False

    def scale(self, step: LastStep) -> Floats64:
        """Return what stands in the place of the deviation, [R]."""
        return step.deviation**2 if self.squared else step.deviation


TRUE_RATIO = RatioForm()


def log_density(x: Floats64, step: LastStep) -> Floats64:
    """Return the log density [..., R] of tokens x [..., R, d]."""
    channels = step.mean.shape[1]
    squares = (step.noise(x) ** 2).sum(-1)
    return np.asarray(-0.5 * squares - channels * (np.log(step.deviation) + _LOG_ROOT_2PI))


def log_ratio(x: Floats64, target: LastStep, draft: LastStep, form: RatioForm = TRUE_RATIO) -> Floats64:
    """Return log P(x)/Q(x), [..., R], of tokens x [..., R, d]; P is the target's Gaussian and Q the draft's.

    With a = (x - mean_q) / s_q and b = (x - mean_p) / s_p it is d log(s_q / s_p) + (a - b)(a + b) / 2. The product
    keeps the digits that a difference of two large squares loses, and is exactly 0 for equal Gaussians.
    """
    scale_p, scale_q = form.scale(target), form.scale(draft)
    a, b = (x - draft.mean) / scale_q[:, None], (x - target.mean) / scale_p[:, None]
    exponent = 0.5 * ((a - b) * (a + b)).sum(-1) / form.temperature
    return np.asarray(form.log_factor + target.mean.shape[1] * np.log(scale_q / scale_p) + exponent)


def apart(target: LastStep, draft: LastStep) -> tuple[Floats64, Floats64]:
    """Return the unit vector [R, d] from Q's mean to P's, and their distance [R]. Where they agree it is 0 and e_1."""
    between = target.mean - draft.mean
    largest = np.abs(between).max(-1, keepdims=True)  # scaled by it, so that no square underflows
    scaled = between / np.where(largest > 0, largest, 1.0)
    length = np.sqrt((scaled**2).sum(-1, keepdims=True))
    unit = scaled / np.where(length > 0, length, 1.0)
    unit[..., 0] = np.where(length[..., 0] > 0, unit[..., 0], 1.0)
    return unit, np.asarray((length * largest)[..., 0])


def upper_tail(x: Any) -> Floats64:
    """Return the probability that a standard normal exceeds x, elementwise."""
    return np.asarray(0.5 * np.asarray(_erfc(np.asarray(x, np.float64) / math.sqrt(2)), np.float64))
