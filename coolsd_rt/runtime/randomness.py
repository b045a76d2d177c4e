"""Every random number of an image, drawn before it starts and outside every graph.

One number per (seed, image position, purpose, attempt), from NumPy's Philox4x64 counter generator. Knows seeds and
positions; does not know prompts, batches, backends or the draft length's meaning.

The attempt is the position's offset in its round's window. A round commits at least one token, so from round to round
the offset of one position strictly falls: a pair (position, offset) never comes up twice, and a number is never used
twice, not after a rejection either. All of an image's numbers are then one table, which can be drawn at once.

Layout (another implementation has to follow it): key = (seed, offset), counter = position + 1, and the four 64-bit
words of that block are the purposes draft, accept, resample and a spare; the value is the top 24 bits times 2^-24. So
a table for one draft length is the beginning of the table for a longer one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.limits import SEED

DRAFT, ACCEPT, RESAMPLE = range(3)  # purposes: last axis of the table
PURPOSES = 3
SEED_LIMIT = int(SEED.high) + 1
_WORDS = 4  # of one Philox4x64 block


def uniform_table(seeds: Sequence[int], tokens: int, length: int) -> NDArray[np.float32]:
    """Uniforms float32 [len(seeds), tokens, length + 1, 3] in [0, 1): by image, position, window offset, purpose.

    tokens: image tokens of an image. length: draft length. An image's numbers depend on its own seed alone.
    Raises UserError on a seed outside 0..2^64-1.
    """
    seeds = [SEED.check("a seed", seed) for seed in seeds]
    words = np.empty((len(seeds), tokens, length + 1, PURPOSES), np.uint64)
    for row, seed in enumerate(seeds):
        for offset in range(length + 1):
            stream = np.random.Philox(key=np.array([seed, offset], np.uint64))
            words[row, :, offset] = stream.random_raw(tokens * _WORDS).reshape(tokens, _WORDS)[:, :PURPOSES]
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
