"""Intervals of medians: against the binomial they come from, how often they hold, and what a ratio says of itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from coolsd_rt.bench.stats import LEAST_RUNS, LEVEL, Median, paired_ratio, verdict


def coverage(n: int, k: int) -> float:
    """Probability that the k-th smallest and k-th largest of n samples have the median between them."""
    return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / float(2**n)


@pytest.mark.parametrize("n", range(LEAST_RUNS, 25))
def test_bounds_are_the_narrowest_order_statistics_that_hold(n: int) -> None:
    samples = [float(i) for i in np.random.default_rng(n).permutation(n) + 1]  # the k-th smallest is k
    found = Median.of(samples)
    k = max(k for k in range(1, n // 2 + 1) if coverage(n, k) >= LEVEL)
    assert (found.low, found.high) == (k, n + 1 - k)
    assert found.median == (n + 1) / 2
    assert found.samples == tuple(samples)


def test_too_few_samples_have_no_interval() -> None:
    assert coverage(LEAST_RUNS, 1) >= LEVEL > coverage(LEAST_RUNS - 1, 1)
    for n in range(1, LEAST_RUNS):
        found = Median.of([float(i) for i in range(n)])
        assert (found.low, found.high) == (None, None)
        assert found.text() == f"{found.median:.2f}"
    assert Median.of([1.0, 100.0, 2.0, 3.0]).text() == "2.50"
    assert Median.of([2.0] * LEAST_RUNS).text(1, "x") == "2.0x (2.0-2.0)"


def test_intervals_hold_as_often_as_they_say_on_skewed_samples() -> None:
    """Timings have outliers on one side. A percentile bootstrap fails here: at 7 samples it gives the second smallest
    and the second largest, which hold 87.5% of the time."""
    rng, truth, tries = np.random.default_rng(0), 1.0, 500
    for n in (6, 7):
        held = 0
        for samples in rng.lognormal(0.0, 1.5, (tries, n)).tolist():
            found = Median.of(samples)
            assert found.low is not None
            assert found.high is not None
            held += found.low <= truth <= found.high
        assert held / tries > LEVEL - 3 * math.sqrt(LEVEL * (1 - LEVEL) / tries)


def test_ratios_are_paired_by_turn() -> None:
    """The machine slows down fourfold over the run: medians of each side alone would tell nothing."""
    plain = [100.0, 80.0, 60.0, 50.0, 40.0, 30.0, 25.0]
    found = paired_ratio([x * f for x, f in zip(plain, (1.2, 1.25, 1.3, 1.2, 1.1, 1.2, 1.15), strict=True)], plain)
    assert found.median == pytest.approx(1.2)
    assert found.low == pytest.approx(1.1)
    assert found.high == pytest.approx(1.3)
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0, 2.0], [1.0])


def test_verdicts_stand_on_the_interval_alone() -> None:
    def of(*ratios: float) -> str:
        found = {verdict(Median.of(order)) for order in itertools.islice(itertools.permutations(ratios), 5)}
        assert len(found) == 1
        return found.pop()

    assert of(1.1, 1.2, 1.3, 1.2, 1.1, 1.4) == "pays"
    assert of(0.9, 0.8, 0.7, 0.99, 0.8, 0.9) == "does not pay"
    assert of(0.9, 0.8, 0.7, 1.01, 0.8, 0.9) == "unclear"  # one turn of six was faster
    assert of(1.1, 1.2, 1.3, 1.2, 1.1, 0.99) == "unclear"
    assert of(1.1, 1.2, 1.3, 1.2, 1.0, 1.4) == "unclear"
    assert of(0.1, 0.1, 0.1, 0.1, 0.1) == "too few runs"
