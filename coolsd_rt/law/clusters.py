"""Ratios of sums over images, with standard errors.

The rounds of one image are correlated: how far the draft is from the target is largely a property of the image. So an
image counts as one observation, whatever its number of rounds; treating rounds as independent underestimates the error.

Knows NumPy arrays. Does not know the quantity that is summed, nor quantiles: `coolsd_rt.schedules.bounds` turns an
error into a bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Floats64


@dataclass(frozen=True)
class RatioEstimate:
    """A ratio of sums over images and its standard error.

    value: the ratio.
    error: its standard error; NaN for fewer than two images.
    skewness: sample skewness of the images' deviations.
    images: number of images.
    """

    value: float
    error: float
    skewness: float
    images: int

    @staticmethod
    def of(numerator: Floats64, denominator: Floats64) -> RatioEstimate:
        """Estimate sum(numerator) / sum(denominator); both arrays are float64 [images], the denominator positive.

        The error is the linearised one: an image deviates by numerator - value * denominator.
        """
        count, total = len(numerator), float(denominator.sum())
        value = float(numerator.sum()) / total
        if not np.isfinite(value):
            return RatioEstimate(value, float("nan"), 0.0, count)
        apart = numerator - value * denominator
        squares = float((apart**2).sum())
        error = float(np.sqrt(count / (count - 1) * squares)) / total if count > 1 else float("nan")
        skewness = float((apart**3).mean() / (squares / count) ** 1.5) if squares > 0 else 0.0
        if count > 2:
            skewness *= float(np.sqrt(count * (count - 1))) / (count - 2)  # corrects the bias of the sample skewness
        return RatioEstimate(value, error, skewness, count)


@dataclass(frozen=True)
class ImageSums:
    """Sums over the rounds of each image, float64 [images].

    rounds: number of rounds.
    tokens: expected tokens of these rounds.
    kl: divergence of the rounds' joint distributions from the target's, nats.
    tv: total variation of the distribution at each position, summed over the evaluated positions.
    tv_round: total variation of the rounds' joint distributions.
    """

    rounds: Floats64
    tokens: Floats64
    kl: Floats64
    tv: Floats64
    tv_round: Floats64

    @property
    def accept_length(self) -> RatioEstimate:
        """Tokens per round."""
        return RatioEstimate.of(self.tokens, self.rounds)

    @property
    def kl_per_token(self) -> RatioEstimate:
        """KL divergence per generated token, nats."""
        return RatioEstimate.of(self.kl, self.tokens)

    @property
    def tv_bound_per_token(self) -> RatioEstimate:
        """Total variation summed over positions, per generated token."""
        return RatioEstimate.of(self.tv, self.tokens)

    @property
    def tv_of_a_round(self) -> RatioEstimate:
        """Total variation of the joint distribution of one round."""
        return RatioEstimate.of(self.tv_round, self.rounds)


def sums(image: NDArray[np.int64], tokens: Floats64, kl: Floats64, tv: Floats64, tv_round: Floats64) -> ImageSums:
    """Add up values given per round, float64 [n], by the image of each round, int64 [n]."""
    _, which = np.unique(image, return_inverse=True)

    def by_image(values: Floats64) -> Floats64:
        return np.asarray(np.bincount(which, weights=values), np.float64)

    return ImageSums(by_image(np.ones(len(image))), *(by_image(values) for values in (tokens, kl, tv, tv_round)))
