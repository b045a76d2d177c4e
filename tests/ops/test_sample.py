"""Inverse CDF: the right index, never an impossible one, at any size, on both libraries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from coolsd_rt.errors import CoolsdError
from coolsd_rt.ops import race, sample
from tests.ops.libraries import LIBRARIES, Convert, host

WEIGHTS = st.lists(st.sampled_from([0.0, 1e-30, 1e-7, 0.1, 0.5, 1.0]), min_size=1, max_size=12)
LAST = 1 - 2.0**-53


@pytest.fixture(params=list(LIBRARIES))
def to(request: pytest.FixtureRequest) -> Convert:
    return LIBRARIES[request.param]


@given(weights=WEIGHTS, u=st.one_of(st.floats(0, LAST), st.sampled_from([0.0, LAST, 1 - 2.0**-24])))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_drawn_code_has_weight(weights: list[float], u: float, dtype: str) -> None:
    w = np.array([weights], dtype)
    for to in LIBRARIES.values():
        if w.sum() == 0:
            with pytest.raises(CoolsdError):
                sample(to(w), to(np.array([u])))
        else:
            index = int(sample(to(w), to(np.array([u])))[0])
            assert w[0, index] > 0
            cdf = np.cumsum(w[0].astype(np.float64))
            assert (cdf[index - 1] if index else 0.0) <= u * cdf[-1] * (1 + 1e-15)
            assert u * cdf[-1] * (1 - 1e-15) <= cdf[index]


def test_ends(to: Convert) -> None:
    w = to(np.array([[0.0, 0.0, 0.25, 0.75, 0.0, 0.0]] * 3, np.float32))
    assert host(sample(w, to(np.array([0.0, 0.25, LAST])))).tolist() == [2, 3, 3]
    assert host(sample(w, to(np.array([1.0, 1.0, 1.0])))).tolist() == [3, 3, 3]  # not allowed, and still harmless


def test_weights_need_no_normalising(to: Convert) -> None:
    w = np.array([[1e-5, 3e-5]], np.float32)
    assert host(sample(to(w), to(np.array([0.24])))).tolist() == [0]
    assert host(sample(to(w), to(np.array([0.26])))).tolist() == [1]


def test_a_large_vocabulary_does_not_drift(to: Convert) -> None:
    """Flat over 65536 codes, every boundary is known. A float32 sum would be off by dozens of codes."""
    vocab = 65536
    w = to(np.full((1, vocab), 1 / vocab, np.float32) * np.float32(0.7))
    for k in (0, 1, 40000, vocab - 1):
        assert int(sample(w, to(np.array([(k + 0.5) / vocab])))[0]) == k


def test_any_leading_shape(to: Convert) -> None:
    w = to(np.array([[[0.5, 0.5], [1.0, 0.0]]], np.float32))
    assert host(sample(w, to(np.array([[0.7, 0.7]], np.float32)))).tolist() == [[1, 0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_distribution_fails_loudly(to: Convert, bad: float) -> None:
    with pytest.raises(CoolsdError, match="cannot be sampled"):
        sample(to(np.array([[0.5, 0.5], [bad, 0.5]], np.float32)), to(np.array([0.5, 0.5])))


def test_a_race_is_won_in_proportion_to_the_weights(to: Convert) -> None:
    """Two codes exactly: with noise (r, 1 - r) code 0 wins where r is below its share, and the total has no say."""
    noise = np.array([[0.29, 0.71], [0.31, 0.69]])
    for total in (1.0, 1e-30, 64.0):
        assert host(race(to(np.array([[0.3, 0.7]] * 2) * total), to(noise))).tolist() == [0, 1]


def test_a_race_has_the_law_of_its_weights(to: Convert) -> None:
    """200,000 draws of 5 codes: a total variation of .01 is found with probability above .999, and the truth refused
    one time in 10,000."""
    weights, count = np.array([0.0, 0.05, 0.15, 0.2, 0.6]), 200_000
    noise = -np.log(np.random.default_rng(3).uniform(size=(count, 5)))
    drawn = np.bincount(host(race(to(np.tile(weights, (count, 1))), to(noise))), minlength=5)
    assert drawn[0] == 0
    statistic = ((drawn[1:] - weights[1:] * count) ** 2 / (weights[1:] * count)).sum()
    assert statistic < chi2.ppf(1 - 1e-4, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_race_without_a_distribution_is_said(to: Convert, bad: float) -> None:
    for weights in ([[0.5, bad]], [[0.0, 0.0]]):
        with pytest.raises(CoolsdError, match="cannot be sampled"):
            race(to(np.array(weights)), to(np.ones((1, 2))))
