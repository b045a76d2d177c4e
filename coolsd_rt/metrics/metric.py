"""What a measure of images is, and which points no other beats.

Knows the measures by name. Does not know how any of them is computed, nor how images were drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.store.strict import Strict

Images = NDArray[np.uint8]  # RGB [N, F, F, 3]
Z95 = 1.959963984540054  # of a two-sided interval of 95%


class Figure(Strict):
    """A value and its 95% interval, which is None where too little was seen. `interval` says of what kind it is."""

    value: float
    low: float | None
    high: float | None
    interval: str

    @staticmethod
    def around(value: float, error: float, interval: str) -> Figure:
        """With a symmetric interval of so many standard errors; NaN if the error is not known."""
        known = math.isfinite(error)
        low, high = (value - Z95 * error, value + Z95 * error) if known else (None, None)
        return Figure(value=value, low=low, high=high, interval=interval)

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" ({self.low:.3g} to {self.high:.3g})"
        return f"{self.value:.3g}{interval}"


@dataclass(frozen=True)
class Kind:
    """What a measure is called and which way is better."""

    name: str
    label: str
    lower_is_better: bool = False


FRECHET = Kind("frechet", "Fréchet distance", lower_is_better=True)
RETRIEVAL = Kind("retrieval", "retrieval accuracy")
CLIP = Kind("clip", "CLIP score")
KINDS = {kind.name: kind for kind in (FRECHET, RETRIEVAL, CLIP)}


class Measure(Protocol):
    """One measure, ready to use: its files are read, its network is loaded."""

    @property
    def kind(self) -> Kind: ...

    @property
    def plain_images(self) -> bool:
        """Whether it still needs images of plain decoding: `refer` is called with them before `measure`."""
        ...

    def identity(self) -> Any:
        """What its figures depend on beside the images, as JSON data."""
        ...

    def check(self, side: int, prompts: Sequence[str]) -> None:
        """Raise UserError if it cannot measure images of `side` pixels of these prompts. Before any is drawn."""
        ...

    def refer(self, images: Images) -> None:
        """Take images of plain decoding as the references."""
        ...

    def measure(self, images: Images, prompts: Sequence[str]) -> Figure:
        """The figure of images, one a prompt."""
        ...


def front(lengths: Sequence[float], values: Sequence[float], lower_is_better: bool) -> list[int]:
    """Indices of the points that no other beats, by rising accept length.

    A point is beaten by one that is at least as long and at least as good, and better in one of the two.
    """
    good = [-v if lower_is_better else v for v in values]
    order = sorted(range(len(good)), key=lambda i: (-lengths[i], -good[i]))
    kept: list[int] = []
    for i in order:
        last = kept[-1] if kept else None
        if last is None or good[i] > good[last] or (good[i] == good[last] and lengths[i] == lengths[last]):
            kept.append(i)
    return kept[::-1]
