"""The random numbers of an image. They are drawn before decoding starts and outside every graph.

There is one number per (seed, image position, purpose, attempt), from NumPy's Philox4x64 counter generator. Knows seeds
and positions; does not know prompts, batches, backends or the meaning of the draft length.

The attempt is the position's offset in the window of its round. A round commits at least one token, so the offset of a
position strictly decreases from round to round: a pair (position, offset) never occurs twice, and no number is used
twice, not even after a rejection. All numbers of an image therefore fit one table, which is drawn at once.

Where the drafts of a round are a tree, the offset is the number of the node (`coolsd_rt.runtime.trees`). A position's
depth strictly decreases from round to round, and nodes of different depths have different numbers.

Layout (every implementation must follow it): key = (seed, offset), counter = position + 1. The four 64-bit words of
that block are the purposes draft, accept, resample and a spare; the value is the top 24 bits times 2^-24. The table for
a draft length is therefore a prefix of the table for any longer one.

Where a round judges its drafts in several passes (`coolsd_rt.runtime.position_round`), each pass behind the first has
two more purposes, accept and resample, of the block at the key (seed, offset + pass * 2^32).

Noise (`exponentials`): where drafts of a position share one noise over all rounds (Gumbel coupling), it takes the place
of the position's draft numbers. Its key is made of the first two of them, 48 bits, so that it follows from the table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.limits import SEED

_NOISE = 1 << 40  # second word of the key of noise; no window offset is as large, with its pass
_LATER = 1 << 32  # second word of the key of the second pass; no window offset is as large
DRAFT, ACCEPT, RESAMPLE = range(3)  # purposes: indices of the table's last axis
PURPOSES = 3
PASS = 2  # purposes from a pass to the next: ACCEPT + PASS * k is accept of pass k, from 0
SEED_LIMIT = int(SEED.high) + 1
_WORDS = 4  # 64-bit words per Philox4x64 block


def uniform_table(seeds: Sequence[int], tokens: int, length: int, passes: int = 1) -> NDArray[np.float32]:
    """Return uniforms float32 [len(seeds), tokens, length + 1, 3] in [0, 1): image, position, window offset, purpose.

    tokens: number of image tokens per image. length: draft length. passes: in which a round judges its drafts; each
    behind the first has `PASS` more purposes. The numbers of an image depend on its seed alone.
    Raises UserError for a seed outside 0..2^64-1.
    """
    seeds = [SEED.check("a seed", seed) for seed in seeds]
    words = np.empty((len(seeds), tokens, length + 1, PURPOSES + PASS * max(0, passes - 1)), np.uint64)
    for row, seed in enumerate(seeds):
        for offset in range(length + 1):
            words[row, :, offset, :PURPOSES] = _blocks(seed, offset, tokens)[:, :PURPOSES]
            for k in range(1, passes):
                first = ACCEPT + PASS * k
                words[row, :, offset, first : first + PASS] = _blocks(seed, offset + _LATER * k, tokens)[
                    :, 1 : 1 + PASS
                ]
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _blocks(seed: int, second: int, tokens: int) -> NDArray[np.uint64]:
    """Return the blocks of a key, uint64 [tokens, 4]."""
    stream = np.random.Philox(key=np.array([seed, second], np.uint64))
    words: NDArray[np.uint64] = stream.random_raw(tokens * _WORDS)
    return words.reshape(tokens, _WORDS)


def exponentials(first: float, second: float, vocab: int) -> NDArray[np.float64]:
    """Return independent numbers of the exponential distribution with mean 1, float64 [vocab], all above 0.

    first, second: the position's draft numbers at window offsets 0 and 1. `argmin(exponentials / Q)` has the law Q for
    any Q; -log of them is Gumbel noise, and `argmax(log Q + noise)` is the same token.
    """
    low, high = (int(u * 2.0**24) for u in (first, second))
    stream = np.random.Philox(key=np.array([low + (high << 24), _NOISE], np.uint64))
    words: NDArray[np.uint64] = stream.random_raw(vocab)
    below_one = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52  # 52 bits and a half: never 0, never 1
    noise: NDArray[np.float64] = -np.log(below_one)
    return noise
