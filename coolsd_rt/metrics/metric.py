"""The protocol of a measure of images, and the Pareto front of points.

Knows measures by name. Does not know how any of them is computed or how images were drawn.
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
Z95 = 1.959963984540054  # standard errors on each side of a 95% interval


class Figure(Strict):
    """A value and its 95% interval, None if there is too little data. `interval` describes the kind of interval."""

    value: float
    low: float | None
    high: float | None
    interval: str

    @staticmethod
    def around(value: float, error: float, interval: str) -> Figure:
        """Return a figure with a symmetric 95% interval. error: standard error; NaN if unknown."""
        known = math.isfinite(error)
        low, high = (value - Z95 * error, value + Z95 * error) if known else (None, None)
        return Figure(value=value, low=low, high=high, interval=interval)

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" ({self.low:.3g} to {self.high:.3g})"
        return f"{self.value:.3g}{interval}"


@dataclass(frozen=True)
class Kind:
    """The name of a measure, and which direction is better."""

    name: str
    label: str
    lower_is_better: bool = False


FRECHET = Kind("frechet", "Fréchet distance", lower_is_better=True)
RETRIEVAL = Kind("retrieval", "retrieval accuracy")
CLIP = Kind("clip", "CLIP score")
KINDS = {kind.name: kind for kind in (FRECHET, RETRIEVAL, CLIP)}


class Measure(Protocol):
    """A measure whose files are read and whose network is loaded."""

    @property
    def kind(self) -> Kind:
        """Name and direction of the measure."""
        ...

    @property
    def plain_images(self) -> bool:
        """Whether the measure needs images of plain decoding; if so, `refer` is called before `measure`."""
        ...

    def identity(self) -> Any:
        """Return what its figures depend on besides the images, as JSON data."""
        ...

    def check(self, side: int, prompts: Sequence[str]) -> None:
        """Raise UserError if it cannot measure images of `side` pixels of these prompts.

        Called before any image is drawn.
        """
        ...

    def refer(self, images: Images) -> None:
        """Use images of plain decoding as the references."""
        ...

    def measure(self, images: Images, prompts: Sequence[str]) -> Figure:
        """Return the figure of images uint8 [N, F, F, 3] with one prompt each."""
        ...


def front(lengths: Sequence[float], values: Sequence[float], lower_is_better: bool) -> list[int]:
    """Return the indices of the points on the Pareto front, by rising accept length.

    A point is dominated by one that is at least as long and at least as good, and better in one of the two.
    """
    good = [-v if lower_is_better else v for v in values]
    order = sorted(range(len(good)), key=lambda i: (-lengths[i], -good[i]))
    kept: list[int] = []
    for i in order:
        last = kept[-1] if kept else None
        if last is None or good[i] > good[last] or (good[i] == good[last] and lengths[i] == lengths[last]):
            kept.append(i)
    return kept[::-1]
