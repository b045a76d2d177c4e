"""Inverse CDF: the right index, never an impossible one, at any size, on both libraries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.errors import CoolsdError
from coolsd_rt.ops import sample
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
