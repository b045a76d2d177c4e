"""Fréchet distances of several laws to one set of references, for bootstrap samples of image indices.

A sample takes the same images of all laws, and with image k its references (those of the same prompt: reference i goes
with image i modulo the number of images). The references are resampled because their chance moves a difference between
two laws as much as the images' own: the means enter squared, so their error times the laws' distance remains.

Knows features. Does not know images, networks or sweeps. Agrees with `coolsd_rt.metrics.frechet.distance`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.paper.paired import Counts, Floats


def _moments(features: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return mean and covariance of features with whole-number weights, as of repeated rows."""
    total = weights.sum()
    mean = weights @ features / total
    centred = features - mean
    return mean, (centred * weights[:, None]).T @ centred / (total - 1)


def _root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    found: Floats = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return found


@dataclass(frozen=True)
class FrechetPairs:
    """Features [N, D] of each law's images, and references [M, D]."""

    laws: Mapping[str, Floats]
    real: Floats

    @property
    def images(self) -> int:
        """Images of each law."""
        return len(next(iter(self.laws.values())))

    def distances(self, weights: NDArray[np.number]) -> Floats:
        """Return the distance of each law, for one weight per image."""
        w = weights.astype(np.float64)
        used = w > 0
        own = w[np.arange(len(self.real)) % len(w)]
        mean, covariance = _moments(self.real[own > 0], own[own > 0])
        root, trace = _root(covariance), float(np.trace(covariance))
        out = []
        for features in self.laws.values():
            other, spread = _moments(features[used], w[used])
            shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ spread @ root), 0)).sum()
            out.append(((mean - other) ** 2).sum() + trace + np.trace(spread) - 2 * shared)
        return np.array(out, np.float64)

    def value(self) -> Floats:
        """Return the distance of each law, of all images."""
        return self.distances(np.ones(self.images))

    def bootstrap(self, weights: Counts, on_sample: Callable[[], None] = lambda: None) -> Floats:
        """Return the distances of all laws for each bootstrap sample, [samples, laws]."""
        out = []
        for row in weights:
            out.append(self.distances(row))
            on_sample()
        return np.array(out)

    def subsampled(self, size: int, draws: int, seed: int = 0) -> Floats:
        """Return the distances of all laws for subsets of `size` images, none twice, [draws, laws]."""
        random, out = np.random.default_rng(seed), []
        for _ in range(draws):
            weights = np.zeros(self.images)
            weights[random.choice(self.images, size, replace=False)] = 1
            out.append(self.distances(weights))
        return np.array(out)
