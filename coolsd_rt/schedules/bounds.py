"""One-sided bounds of a ratio over images, and how many images a margin takes.

Student's t over the images, with the correction for skewed deviations of the Cornish-Fisher expansion (Johnson, 1978):
figures that cannot be negative are skewed to the right, and the plain t bound is then passed too often. Where the
skewness would bring a bound nearer, it is left out. On the demo's images (skewness .7) a 95% bound is passed by the
truth in about 5% of samples of 12 to 45 images, the plain one in 6 to 7%.

Knows scipy. Does not know what a figure is of.
"""

from __future__ import annotations

import bisect
import math

from scipy import stats

from coolsd_rt.law.clusters import RatioEstimate

_MOST_IMAGES = 10**9


def upper(ratio: RatioEstimate, confidence: float | None) -> float:
    """What the truth is at most, with this confidence. None: the ratio itself. NaN for fewer than two images."""
    return ratio.value if confidence is None else ratio.value + _reach(ratio, ratio.skewness, confidence)


def lower(ratio: RatioEstimate, confidence: float | None) -> float:
    """What the truth is at least, with this confidence. None: the ratio itself. NaN for fewer than two images."""
    return ratio.value if confidence is None else ratio.value - _reach(ratio, -ratio.skewness, confidence)


def _reach(ratio: RatioEstimate, skewness: float, confidence: float) -> float:
    if ratio.images < 2:
        return math.nan
    quantile = float(stats.t.ppf(confidence, ratio.images - 1))
    correction = max(0.0, skewness) * (2 * quantile**2 + 1) / (6 * math.sqrt(ratio.images))
    return ratio.error * (quantile + correction)


def images_needed(ratio: RatioEstimate, margin: float, confidence: float) -> int:
    """How many images bring a bound within `margin` of the ratio, if they differ as much as those of `ratio` do."""
    spread = ratio.error * math.sqrt(ratio.images)

    def enough(count: int) -> bool:
        return float(stats.t.ppf(confidence, count - 1)) * spread <= margin * math.sqrt(count)

    high = 2
    while not enough(high):
        high *= 2
        if high > _MOST_IMAGES:
            return _MOST_IMAGES
    return bisect.bisect_left(range(2, high), True, key=enough) + 2
