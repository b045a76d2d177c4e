"""Curves of schedules, and recorded rounds split by image for the search.

Knows schedules and windows. Does not know budgets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.law import make_omegas
from coolsd_rt.law.traces import RecordedRounds

Omegas = tuple[float, ...]
FREE = "free"
MOST = 64.0  # largest relaxation parameter of a shape


@dataclass(frozen=True)
class ScheduleShape:
    """A curve of schedules: `at(t)` for t >= 0, from lossless (t = 0) to increasingly relaxed."""

    name: str
    at: Callable[[float], Omegas]


def families(length: int) -> list[ScheduleShape]:
    """Return the shapes that a spec can name, as curves over their relaxation parameter."""

    def excess(nu: float) -> ScheduleShape:
        return ScheduleShape(f"excess, nu {nu:g}", lambda t: make_omegas("excess", length, beta=t, nu=nu))

    def floored(kind: Literal["exponential", "linear"]) -> ScheduleShape:
        return ScheduleShape(f"{kind}, floor 1", lambda t: make_omegas(kind, length, delta=t, floor=1.0))

    return [
        ScheduleShape("exponential", lambda t: make_omegas("exponential", length, delta=t)),
        floored("exponential"),
        floored("linear"),
        ScheduleShape("uniform", lambda t: make_omegas("uniform", length, delta=1 + t)),
        *(excess(nu) for nu in (0.1, 0.3, 0.7)),
    ]


def images_of(windows: RecordedRounds) -> NDArray[np.int64]:
    """Return the numbers of the recorded images, in order; empty if the windows do not record them."""
    return np.zeros(0, np.int64) if windows.image is None else np.unique(windows.image)


def split(windows: RecordedRounds, share: float, seed: int = 0) -> tuple[RecordedRounds, RecordedRounds]:
    """Split the rounds by image: `share` of the images, drawn at random, and all others.

    The choice is random because prompts may repeat periodically.
    """
    images = images_of(windows)
    chosen = np.random.default_rng(seed).permutation(images)[: round(share * len(images))]
    among = np.isin(np.asarray(windows.image), chosen)
    return _rows(windows, among), _rows(windows, ~among)


def _rows(windows: RecordedRounds, rows: NDArray[np.bool_]) -> RecordedRounds:
    def of(array: NDArray[Any] | None) -> Any:
        return None if array is None else array[rows]

    return replace(
        windows,
        target=windows.target[rows],
        draft=windows.draft[rows],
        drafts=windows.drafts[rows],
        num_drafts=windows.num_drafts[rows],
        weight=of(windows.weight),
        image=of(windows.image),
    )
