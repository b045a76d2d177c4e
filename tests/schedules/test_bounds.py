"""One-sided bounds over images hold as often as they say, for figures that are skewed too."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from coolsd_rt.law.clusters import RatioEstimate
from coolsd_rt.schedules.bounds import images_needed, lower, upper


@pytest.mark.parametrize("count", [11, 21, 60])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_bound_is_passed_by_the_truth_as_seldom_as_it_says(count: int, confidence: float) -> None:
    """Skewed to the right, more than a KL over images is (gamma, shape 3): 4000 samples, so 5% is known to .35%."""
    rng, draws = np.random.default_rng(count), 4000
    found = [RatioEstimate.of(rng.gamma(3.0, size=count), np.ones(count)) for _ in range(draws)]
    above = np.mean([upper(r, confidence) < 3.0 for r in found])
    below = np.mean([lower(r, confidence) > 3.0 for r in found])
    most = 1 - confidence + (0.025 if count < 20 else 0.02)
    assert above <= most
    assert below <= most
    assert above > 0.5 * (1 - confidence)  # and is not wider than it has to be


def test_without_the_correction_for_skewness_it_would_be_passed_more_often() -> None:
    rng = np.random.default_rng(0)
    found = [RatioEstimate.of(rng.gamma(1.0, size=16), np.ones(16)) for _ in range(4000)]
    plain = np.mean([r.value + r.error * stats.t.ppf(0.95, 15) < 1.0 for r in found])
    corrected = np.mean([upper(r, 0.95) < 1.0 for r in found])
    assert corrected < plain - 0.015


def test_ends_of_the_bound() -> None:
    r = RatioEstimate.of(np.array([1.0, 2.0, 3.0, 5.0]), np.ones(4))
    assert upper(r, None) == lower(r, None) == r.value
    assert lower(r, 0.9) < r.value < upper(r, 0.9) < upper(r, 0.99)
    assert math.isnan(upper(RatioEstimate.of(np.ones(1), np.ones(1)), 0.9))


@pytest.mark.parametrize("margin", [0.01, 0.1, 0.3, 10.0])
def test_images_needed_is_the_least_number_within_the_margin(margin: float) -> None:
    r = RatioEstimate.of(np.random.default_rng(1).gamma(2.0, size=30), np.ones(30))
    spread, count = r.error * math.sqrt(30), images_needed(r, margin, 0.95)
    reach = [stats.t.ppf(0.95, n - 1) * spread / math.sqrt(n) if n > 1 else math.inf for n in (count, count - 1)]
    assert reach[0] <= margin < reach[1]


def test_images_needed_has_an_end() -> None:
    r = RatioEstimate.of(np.array([1.0, 2.0, 3.0]), np.ones(3))
    assert images_needed(r, 0.0, 0.95) == images_needed(r, 1e-9, 0.95) == 10**9
