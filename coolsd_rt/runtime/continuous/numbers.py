"""The random numbers of a batch of continuous tokens, by image, position and window offset.

Knows the layouts of `coolsd_rt.runtime.gaussians` and `coolsd_rt.runtime.randomness`. Does not know what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coolsd_rt.arrays import Floats64, Ints
from coolsd_rt.law.continuous import RetryNumbers
from coolsd_rt.runtime.continuous.interface import Noise, VectorSizes
from coolsd_rt.runtime.gaussians import UNALIGNED, TryNumbers, step_numbers
from coolsd_rt.runtime.randomness import ACCEPT, RESAMPLE, uniform_table


class VectorNumbers:
    """The numbers of M images with these seeds, of which a round uses each at most once."""

    def __init__(self, seeds: Sequence[int], sizes: VectorSizes, length: int, temperature: float) -> None:
        """length: draft length. Raises UserError for a seed out of range."""
        self._seeds, self._sizes, self._temperature = list(seeds), sizes, temperature
        self._uniforms = uniform_table(seeds, sizes.tokens, length).astype(np.float64)

    def tokens(self, images: Ints, tokens: Ints, offset: Ints, aligned: bool = True) -> tuple[Noise, Floats64]:
        """Return the noise of n tokens up to the last step, and that of the last step, float64 [n, d].

        images, tokens, offset: int64 [n]. aligned: what the draft and the target share; else what the target has alone.
        """
        seeds = [self._seeds[m] for m in images.tolist()]
        offsets = (offset if aligned else offset + UNALIGNED).tolist()
        table = step_numbers(seeds, tokens.tolist(), offsets, self._sizes.steps, self._sizes.channels)
        found = table.astype(np.float32)
        between = np.float32(self._temperature) * found[:, 1:-1]
        return Noise(found[:, 0], between), table[:, -1]

    def uniforms(self, images: Ints, tokens: Ints, offset: int) -> Floats64:
        """Return the uniforms of acceptance and of a replacement, float64 [n, 2]."""
        return np.asarray(self._uniforms[images, tokens, offset][:, [ACCEPT, RESAMPLE]])

    def tries(self, images: Ints, tokens: Ints, offset: int) -> RetryNumbers:
        """Return the numbers of the tries of n rows."""
        seeds = [self._seeds[m] for m in images.tolist()]
        return TryNumbers(seeds, tokens.tolist(), [offset] * len(seeds), self._sizes.channels)
