"""Medians with intervals that hold for few samples, and what a ratio to plain decoding says.

Knows lists of numbers. Does not know what was timed.

The interval of a median is that of order statistics (the sign test turned round, `scipy.stats.quantile_test`): it
holds for any law of the samples, skewed and with outliers, which is what timings on a shared machine have. It needs
`LEAST_RUNS` samples for 95%; with fewer there is none, and none is made up. A percentile bootstrap of the median would
give one, and at 7 samples hold 87.5% of the time while it says 95%.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scipy import stats

LEVEL = 0.95
LEAST_RUNS = 6  # 1 - 2 * 0.5^n >= LEVEL

Verdict = Literal["pays", "does not pay", "unclear", "too few runs"]


@dataclass(frozen=True)
class Median:
    """The median of samples, and its interval at `LEVEL`; low and high are None with too few samples."""

    samples: tuple[float, ...]
    median: float
    low: float | None
    high: float | None

    @staticmethod
    def of(samples: Sequence[float]) -> Median:
        """samples: one or more finite numbers."""
        found = stats.quantile_test(list(samples), q=0, p=0.5).confidence_interval(confidence_level=LEVEL)
        low, high = (None if math.isnan(bound) else float(bound) for bound in (found.low, found.high))
        both = low is not None and high is not None
        return Median(tuple(samples), statistics.median(samples), low if both else None, high if both else None)

    def text(self, digits: int = 2, unit: str = "") -> str:
        """`1.20x (1.10-1.30)`, or without the brackets."""
        middle = f"{self.median:.{digits}f}{unit}"
        if self.low is None or self.high is None:
            return middle
        return f"{middle} ({self.low:.{digits}f}-{self.high:.{digits}f})"

    def as_dict(self) -> dict[str, Any]:
        return {"median": self.median, "low": self.low, "high": self.high, "samples": list(self.samples)}


def paired_ratio(samples: Sequence[float], baseline: Sequence[float]) -> Median:
    """Of the ratios within each turn, so that what a turn does to both sides falls out."""
    return Median.of([a / b for a, b in zip(samples, baseline, strict=True)])


def verdict(ratio: Median) -> Verdict:
    """Whether speculation pays: only where all of the interval stands on one side of 1."""
    if ratio.low is None or ratio.high is None:
        return "too few runs"
    if ratio.low > 1:
        return "pays"
    return "does not pay" if ratio.high < 1 else "unclear"
