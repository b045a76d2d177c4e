"""Medians with confidence intervals that hold for few samples, and verdicts on a ratio to plain decoding.

Knows lists of numbers. Does not know what was timed.

The interval of a median is that of order statistics (the inverted sign test, `scipy.stats.quantile_test`): it holds for
any distribution of the samples, including skewed ones with outliers, which timings on a shared machine have. It needs
`LEAST_RUNS` samples for 95%; with fewer there is no interval. A percentile bootstrap of the median would give one, but
at 7 samples its nominal 95% interval covers the median 87.5% of the time.
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
    """The median of samples and its interval at `LEVEL`; low and high are None with too few samples."""

    samples: tuple[float, ...]
    median: float
    low: float | None
    high: float | None

    @staticmethod
    def of(samples: Sequence[float]) -> Median:
        """Compute the median of one or more finite numbers, and its interval."""
        found = stats.quantile_test(list(samples), q=0, p=0.5).confidence_interval(confidence_level=LEVEL)
        low, high = (None if math.isnan(bound) else float(bound) for bound in (found.low, found.high))
        both = low is not None and high is not None
        return Median(tuple(samples), statistics.median(samples), low if both else None, high if both else None)

    def text(self, digits: int = 2, unit: str = "") -> str:
        """Return `1.20x (1.10-1.30)`, or without the interval if there is none."""
        middle = f"{self.median:.{digits}f}{unit}"
        if self.low is None or self.high is None:
            return middle
        return f"{middle} ({self.low:.{digits}f}-{self.high:.{digits}f})"

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {"median": self.median, "low": self.low, "high": self.high, "samples": list(self.samples)}


def paired_ratio(samples: Sequence[float], baseline: Sequence[float]) -> Median:
    """Return the median ratio within each turn, so that effects of a turn on both sides cancel."""
    return Median.of([a / b for a, b in zip(samples, baseline, strict=True)])


def verdict(ratio: Median) -> Verdict:
    """Return whether speculation pays: a verdict only if the whole interval lies on one side of 1."""
    if ratio.low is None or ratio.high is None:
        return "too few runs"
    if ratio.low > 1:
        return "pays"
    return "does not pay" if ratio.high < 1 else "unclear"
