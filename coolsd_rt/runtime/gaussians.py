"""The Gaussians of continuous tokens: those of the steps that draw one, and those of the tries after a rejection.

There is one set per (seed, image position, window offset), and one per try, from the Philox4x64 generator of
`coolsd_rt.runtime.randomness`, and none of it depends on the rows beside a row. Their user is
`coolsd_rt.runtime.continuous`. Knows seeds and positions. Does not know what the numbers decide.

Layout (every implementation must follow it): key = (seed, offset); the four 64-bit words of the counter, lowest first,
are (block, try, position + 1, 1) for a try and (block, 0, position + 1, 2) for the steps, with blocks from 1. The
uniforms of `randomness` have 0 in the last word, so that no block serves two of them. A value is the top 53 bits times
2^-53. Of a try, word 0 is the uniform, and pairs begin behind it. Pairs (v, w) of neighbouring words give the
Box-Muller transform: sqrt(-2 log(1 - v)) times cos(2 pi w) and sin(2 pi w), for two channels each. The numbers of the
steps are those of T's state, then of each step in order, the last one last, each from a pair of its own on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Floats64, Ints

_TRIES, _STEPS = 1, 2  # the counter's last word
UNALIGNED = 1 << 20  # added to the offset for noise that the target does not share with the draft; no window is so long


class TryNumbers:
    """Numbers of tries, for `coolsd_rt.law.continuous.redraw`: a `RetryNumbers`."""

    def __init__(self, seeds: Sequence[int], positions: Sequence[int], offsets: Sequence[int], channels: int) -> None:
        """Describe the rows: each one's seed, image position, and offset in its window."""
        self._rows = list(zip(seeds, positions, offsets, strict=True))
        self._channels = channels

    def __call__(self, rows: Ints, attempt: int) -> tuple[Floats64, Floats64]:
        """Return standard normal noise float64 [n, channels] and uniforms [n] in [0, 1), of rows [n] at a try."""
        words = np.empty((len(rows), 1 + _words(self._channels)), np.uint64)
        for n, row in enumerate(rows.tolist()):
            seed, position, offset = self._rows[row]
            counter = np.array([0, attempt, position + 1, _TRIES], np.uint64)
            stream = np.random.Philox(key=np.array([seed, offset], np.uint64), counter=counter)
            words[n] = stream.random_raw(words.shape[1])
        uniforms = _uniforms(words)
        return _normals(uniforms[:, 1:])[:, : self._channels], uniforms[:, 0]


def step_numbers(
    seeds: Sequence[int], positions: Sequence[int], offsets: Sequence[int], steps: int, channels: int
) -> Floats64:
    """Return the numbers of the steps that draw R tokens, standard normal, float64 [R, steps + 1, channels].

    seeds, positions, offsets: of each row, as in `TryNumbers`. Entry 0 is the state at the first time, the last entry
    is the noise of the last step.
    """
    width = _words(channels)
    words = np.empty((len(seeds), (steps + 1) * width), np.uint64)
    for n, (seed, position, offset) in enumerate(zip(seeds, positions, offsets, strict=True)):
        counter = np.array([0, 0, position + 1, _STEPS], np.uint64)
        stream = np.random.Philox(key=np.array([seed, offset], np.uint64), counter=counter)
        words[n] = stream.random_raw(words.shape[1])
    return _normals(_uniforms(words)).reshape(len(words), steps + 1, width)[:, :, :channels]


def _words(channels: int) -> int:
    """Words that the numbers of so many channels take: whole pairs."""
    return channels + channels % 2


def _uniforms(words: NDArray[np.uint64]) -> Floats64:
    return np.asarray((words >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _normals(uniforms: Floats64) -> Floats64:
    """Box-Muller of the pairs of the last axis, which keeps its length."""
    radius = np.sqrt(-2 * np.log1p(-uniforms[..., ::2]))
    angle = 2 * math.pi * uniforms[..., 1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return pairs.reshape(uniforms.shape)
