"""The numbers of the tries that replace a rejected continuous token: standard normal noise, and a uniform a try.

There is one set per (seed, image position, window offset, try), from the Philox4x64 generator of
`coolsd_rt.runtime.randomness`, and none of it depends on the rows beside a row. No loop draws continuous tokens yet.
Knows seeds and positions. Does not know what the numbers decide.

Layout (every implementation must follow it): key = (seed, offset); the four 64-bit words of the counter, lowest first,
are (block, try, position + 1, 1), with blocks from 1. The uniforms of `randomness` have 0 in the last word, so that no
block serves both. A value is the top 53 bits times 2^-53. Word 0 is the uniform; words 1, 2 and 3, 4 and so on are
pairs (v, w) of the Box-Muller transform: sqrt(-2 log(1 - v)) times cos(2 pi w) and sin(2 pi w), for two channels each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from coolsd_rt.arrays import Floats64, Ints

_PURPOSE = 1  # the counter's last word


class TryNumbers:
    """Numbers of tries, for `coolsd_rt.law.continuous.redraw`: a `RetryNumbers`."""

    def __init__(self, seeds: Sequence[int], positions: Sequence[int], offsets: Sequence[int], channels: int) -> None:
        """Describe the rows: each one's seed, image position, and offset in its window."""
        self._rows = list(zip(seeds, positions, offsets, strict=True))
        self._channels = channels

    def __call__(self, rows: Ints, attempt: int) -> tuple[Floats64, Floats64]:
        """Return standard normal noise float64 [n, channels] and uniforms [n] in [0, 1), of rows [n] at a try."""
        pairs = -(-self._channels // 2)
        words = np.empty((len(rows), 1 + 2 * pairs), np.uint64)
        for n, row in enumerate(rows.tolist()):
            seed, position, offset = self._rows[row]
            counter = np.array([0, attempt, position + 1, _PURPOSE], np.uint64)
            stream = np.random.Philox(key=np.array([seed, offset], np.uint64), counter=counter)
            words[n] = stream.random_raw(1 + 2 * pairs)
        uniforms = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        radius = np.sqrt(-2 * np.log1p(-uniforms[:, 1::2]))
        angle = 2 * math.pi * uniforms[:, 2::2]
        noise = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(len(rows), -1)
        return noise[:, : self._channels], uniforms[:, 0]
