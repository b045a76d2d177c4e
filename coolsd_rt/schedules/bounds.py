"""One-sided confidence bounds of a ratio over images, and the number of images that a margin requires.

Uses Student's t over the images, with the Cornish-Fisher correction for skewed deviations (Johnson, 1978): figures that
cannot be negative are skewed to the right, and the truth then exceeds the plain t bound too often. The skewness is left
out where it would tighten a bound. On the demo's images (skewness .7) the truth exceeds a 95% bound in about 5% of
samples of 12 to 45 images, and the plain t bound in 6 to 7%.

Knows scipy. Does not know what the figures mean.
"""

from __future__ import annotations

import bisect
import math

from scipy import stats

from coolsd_rt.law.clusters import RatioEstimate

_MOST_IMAGES = 10**9


def upper(ratio: RatioEstimate, confidence: float | None) -> float:
    """Return an upper bound of the true ratio, at this confidence.

    None: the ratio itself. NaN for fewer than two images.
    """
    return ratio.value if confidence is None else ratio.value + _reach(ratio, ratio.skewness, confidence)


def lower(ratio: RatioEstimate, confidence: float | None) -> float:
    """Return a lower bound of the true ratio, at this confidence.

    None: the ratio itself. NaN for fewer than two images.
    """
    return ratio.value if confidence is None else ratio.value - _reach(ratio, -ratio.skewness, confidence)


def _reach(ratio: RatioEstimate, skewness: float, confidence: float) -> float:
    if ratio.images < 2:
        return math.nan
    quantile = float(stats.t.ppf(confidence, ratio.images - 1))
    correction = max(0.0, skewness) * (2 * quantile**2 + 1) / (6 * math.sqrt(ratio.images))
    return ratio.error * (quantile + correction)


def images_needed(ratio: RatioEstimate, margin: float, confidence: float) -> int:
    """Return how many images bring a bound within `margin` of the ratio, if images vary as much as those of `ratio`."""
    spread = ratio.error * math.sqrt(ratio.images)

    def enough(count: int) -> bool:
        return float(stats.t.ppf(confidence, count - 1)) * spread <= margin * math.sqrt(count)

    high = 2
    while not enough(high):
        high *= 2
        if high > _MOST_IMAGES:
            return _MOST_IMAGES
    return bisect.bisect_left(range(2, high), True, key=enough) + 2
