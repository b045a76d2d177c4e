"""The protocols between the rounds of continuous tokens and the models that run them, in NumPy on the host.

Knows shapes and dtypes. Does not know networks. Legend as in `coolsd_rt.runtime.round`, and d channels of a token,
K denoising steps, n rows of a head: a row is one position of one image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Ints
from coolsd_rt.law.continuous import LastStep

Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class VectorSizes:
    """Sizes that target and draft share: W prefix positions, N tokens, d channels, K denoising steps."""

    prefix: int
    tokens: int
    channels: int
    steps: int


class Noise(NamedTuple):
    """Standard normal numbers of n tokens up to the state before the last step.

    start: float32 [n, d]. between: float32 [n, K - 1, d].
    """

    start: Floats32
    between: Floats32


class VectorModel(Protocol):
    """A decoder with its caches for one batch, and its diffusion head.

    Caches start as zeros. A step at `pos` overwrites the cache from there on, so rollback is a smaller `pos`. Padding
    may lie behind the last position; its results are discarded.
    """

    def advance(self, tokens: Floats32, pos: Ints) -> Floats32:
        """Run the decoder over tokens [R, S, d] from positions `pos` int64 [R] on; below W the prefix is read instead.

        Returns features float32 [R, S, C]: each is what the head draws the next token under.
        """
        ...

    def last_step(self, features: Floats32, scale: Floats32 | None, noise: Noise) -> LastStep:
        """Run the head up to its last step and return that step's Gaussians, n rows.

        features: [n, C] without CFG; under CFG [2n, C], those with a caption first. scale: [n], of CFG; None without.
        """
        ...


@dataclass(frozen=True)
class VectorSession:
    """The two models of one batch. images: M; rows of the decoder are 2M under CFG, those with a caption first."""

    sizes: VectorSizes
    images: int
    target: VectorModel
    draft: VectorModel | None = None
