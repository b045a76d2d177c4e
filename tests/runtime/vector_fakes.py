"""Models of continuous tokens whose images are jointly normal, so that the law of a whole image is known exactly.

A token's mean is c + sum over the tokens before it of a_k x (k back), plus what the head's shared noise adds; all of it
is linear. A decoder answers with NaN where its cache does not hold what is decided: a stale or missing row.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from coolsd_rt.arrays import Floats64, Ints
from coolsd_rt.law.continuous import LastStep
from coolsd_rt.runtime.continuous import Noise, VectorSampling, VectorSession, VectorSizes
from coolsd_rt.runtime.continuous.interface import Floats32


@dataclass(frozen=True)
class Linear:
    """level: c of rows with a caption, and without. weights: a_1, a_2, .. of the tokens before. start, between: what
    the noise of the first state and of each step adds. deviation: of the last step."""

    level: tuple[float, float] = (0.3, -0.4)
    weights: tuple[float, ...] = (0.5, -0.8)
    start: float = 0.7
    between: float = 0.2
    deviation: float = 0.5

    def mean_and_covariance(self, sizes: VectorSizes, sampling: VectorSampling) -> tuple[Floats64, Floats64]:
        """Of one channel of an image, [N] and [N, N]."""
        with_caption, free = self.level
        level = free + sampling.scale * (with_caption - free) if sampling.guided else with_caption
        back = np.zeros((sizes.tokens, sizes.tokens))
        for k, a in enumerate(self.weights, start=1):
            back += a * np.eye(sizes.tokens, k=-k)
        whole = np.linalg.inv(np.eye(sizes.tokens) - back)
        steps = (sizes.steps - 1) * (self.between * sampling.temperature) ** 2
        variance = self.start**2 + steps + self.deviation**2
        return whole @ np.full(sizes.tokens, level), variance * whole @ whole.T


TARGET = Linear()
DRAFT = replace(TARGET, level=(0.1, -0.2), weights=(0.4, -0.5), start=0.6, between=0.3)
WIDER, NARROWER = replace(DRAFT, deviation=0.6), replace(DRAFT, deviation=0.4)
SIZES = VectorSizes(2, 6, 2, 3)


@dataclass
class LinearModel:
    """A `VectorModel` of one batch. The cache holds the tokens; row t of it is the token at position t."""

    law: Linear
    sizes: VectorSizes
    rows: int
    guided: bool
    calls: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache = np.full((self.rows, self.sizes.prefix + 3 * self.sizes.tokens, self.sizes.channels), np.nan)

    def advance(self, tokens: Floats32, pos: Ints) -> Floats32:
        assert tokens.shape[0] == self.rows == len(pos)
        width = tokens.shape[1]
        self.calls.append(width)
        features = np.empty((self.rows, width, self.sizes.channels + 1))
        for i in range(width):
            at = pos + i
            self.cache[np.arange(self.rows), at] = np.where((at < self.sizes.prefix)[:, None], 0.0, tokens[:, i])
            mean = np.zeros((self.rows, self.sizes.channels))
            for k, a in enumerate(self.law.weights):
                mean += (
                    a * self.cache[np.arange(self.rows), np.maximum(at - k, 0)] * (at - k >= self.sizes.prefix)[:, None]
                )
            features[:, i, :-1], features[:, i, -1] = (
                mean,
                np.arange(self.rows) >= self.rows / (2 if self.guided else 1),
            )
        return features.astype(np.float32)

    def last_step(self, features: Floats32, scale: Floats32 | None, noise: Noise) -> LastStep:
        law, count = self.law, len(noise.start)
        means = [half[:, :-1] + np.where(half[:, -1:] > 0, law.level[1], law.level[0]) for half in
                 np.split(features.astype(np.float64), 1 if scale is None else 2)]  # fmt: skip
        mean = means[0] if scale is None else means[1] + scale[:, None] * (means[0] - means[1])
        assert len(mean) == count
        moved = mean + law.start * noise.start + law.between * noise.between.sum(1)
        return LastStep(moved, np.full(count, law.deviation))


def session(
    images: int, sampling: VectorSampling, draft: Linear | None = DRAFT, sizes: VectorSizes = SIZES
) -> VectorSession:
    def model(law: Linear) -> LinearModel:
        return LinearModel(law, sizes, images * (2 if sampling.guided else 1), sampling.guided)

    return VectorSession(sizes, images, model(TARGET), None if draft is None else model(draft))
