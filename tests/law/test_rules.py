"""Acceptance and residuals: one position, exactly. Random distributions with zeros, ties, disjoint supports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import assume, given
from hypothesis import strategies as st

from coolsd_rt.arrays import Floats64
from coolsd_rt.law import RESAMPLERS, acceptance, accepts, overlap, residual
from coolsd_rt.law.exact import step_law
from coolsd_rt.law.residual import water_level


@st.composite
def distributions(draw: st.DrawFn, size: int = 5) -> Floats64:
    values = st.sampled_from([0.0, 0.0, 1e-300, 1e-9, 0.1, 0.5, 1.0, 3.0])
    weights = draw(st.lists(values, min_size=size, max_size=size))
    assume(sum(weights) > 0)
    w = np.array(weights)
    return np.asarray(w / w.sum(), np.float64)


def tv(a: Floats64, b: Floats64) -> float:
    return 0.5 * float(np.abs(a - b).sum())


@given(p=distributions(), q=distributions(), omega=st.floats(0, 1))
def test_omega_at_most_one_is_lossless_under_the_optimal_residual(p: Floats64, q: Floats64, omega: float) -> None:
    law, rate = step_law(p, q, omega, "optimal")
    assume(1 - rate >= 1e-6)  # nearer to P = Q the degenerate case answers with P, at a distance of 1e-6 at most
    assert tv(law, p) < 1e-12


@given(p=distributions(), q=distributions(), omega=st.floats(1, 20))
def test_above_one_optimal_is_the_classic_residual(p: Floats64, q: Floats64, omega: float) -> None:
    best, _ = residual(p, q, omega, "optimal")
    classic, _ = residual(p, q, 1.0, "residual")
    assume(classic.sum() > 1e-5)
    # Proposition 1: P - min(Q, omega P) is positive exactly where P - Q is, and equal there.
    np.testing.assert_allclose(best, classic, atol=1e-15)


@given(p=distributions(), q=distributions(), omega=st.floats(0, 20))
def test_the_output_never_passes_omega_times_p(p: Floats64, q: Floats64, omega: float) -> None:
    law, rate = step_law(p, q, omega, "optimal")
    assume(1 - rate >= 1e-6)
    assert (law <= max(1.0, omega) * p + 1e-12).all()


@given(p=distributions(), q=distributions(), omega=st.floats(0, 20), kind=st.sampled_from(RESAMPLERS))
def test_nothing_leaves_the_support_of_p(p: Floats64, q: Floats64, omega: float, kind: Any) -> None:
    weights, _ = residual(p, q, omega, kind)
    assert (weights >= 0).all()
    assert weights.sum() > 0
    assert (weights[p == 0] == 0).all()


def divergences(out: Floats64, p: Floats64) -> tuple[float, float]:
    """KL and chi-square of a law from P, over P's support."""
    s = p > 0
    ratio = out[s] / p[s]
    with np.errstate(over="ignore"):
        chi_square = float((p[s] * (ratio - 1) ** 2).sum())
    return float((p[s] * scipy.special.xlogy(ratio, ratio)).sum()), chi_square


@given(p=distributions(), q=distributions(), omega=st.floats(0, 20))
def test_waterfill_keeps_acceptance_and_distance_and_lowers_every_divergence(
    p: Floats64, q: Floats64, omega: float
) -> None:
    best, rate = step_law(p, q, omega, "optimal")
    filled, same = step_law(p, q, omega, "waterfill")
    assume(1 - rate >= 1e-6)
    assert same == rate
    assert tv(filled, p) == pytest.approx(tv(best, p), abs=1e-12)
    for mine, theirs in zip(divergences(filled, p), divergences(best, p), strict=True):
        assert mine <= theirs + 1e-12
    ratios = [np.min(law[p > 0] / p[p > 0]) for law in (filled, best)]
    assert ratios[0] >= ratios[1] - 1e-9


@given(p=distributions(), q=distributions(), omega=st.floats(1, 20), seed=st.integers(0, 2**32))
def test_no_law_with_the_same_overlap_has_a_lower_kl_than_waterfill(
    p: Floats64, q: Floats64, omega: float, seed: int
) -> None:
    """Any other residual in P's support, not only G*: the mass moved elsewhere costs KL."""
    filled, rate = step_law(p, q, omega, "waterfill")
    assume(1 - rate >= 1e-3)
    other = np.random.default_rng(seed).exponential(size=len(p)) * (p > 0)
    law = overlap(p, q, omega) + (1 - rate) * other / other.sum()
    assert divergences(filled, p)[0] <= divergences(law, p)[0] + 1e-12


@given(p=distributions(), q=distributions(), omega=st.floats(0, 1))
def test_waterfill_is_lossless_where_the_optimal_residual_is(p: Floats64, q: Floats64, omega: float) -> None:
    law, rate = step_law(p, q, omega, "waterfill")
    assume(1 - rate >= 1e-6)
    assert tv(law, p) < 1e-12


def test_waterfill_matches_the_figures_of_the_method() -> None:
    """A plain case by hand: omega P caps the first code, the level fills the lowest of the others first."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.9, 0.1, 0.0])
    level = water_level(p, np.minimum(q, 1.2 * p))
    # kept .6 .1 0, mass .3: both others under water, kappa = (.3 + .1) / .5.
    np.testing.assert_allclose(level, [0.8])
    np.testing.assert_allclose(step_law(p, q, 1.2, "waterfill")[0], [0.6, 0.24, 0.16])
    np.testing.assert_allclose(step_law(p, q, 1.2, "optimal")[0], [0.6, 0.1 + 0.15, 0.15])


@given(p=distributions(), q=distributions(), omega=st.floats(0, 20))
def test_acceptance_times_q_is_the_overlap(p: Floats64, q: Floats64, omega: float) -> None:
    f = acceptance(p, q, omega)
    assert ((f >= 0) & (f <= 1)).all()
    np.testing.assert_allclose(q * f, overlap(p, q, omega), atol=1e-15)


@pytest.mark.parametrize(("omega", "bias"), [(0.35, 0.09), (0.7, 0.03)])
def test_the_classic_residual_below_one_is_biased(omega: float, bias: float) -> None:
    """The trap: most positions of the paper's schedule have omega < 1."""
    rng = np.random.default_rng(0)
    p, q = (w / w.sum() for w in rng.exponential(size=(2, 1000)) ** 2)
    assert tv(step_law(p, q, omega, "optimal")[0], p) < 1e-15
    assert tv(step_law(p, q, omega, "residual")[0], p) > bias


def test_p_zero_rejects_always_and_q_zero_never_divides() -> None:
    assert not accepts(0.0, 0.0, 0.5, 100.0)
    np.testing.assert_array_equal(acceptance(np.array([0.5, 0.0]), np.array([0.0, 0.0]), 1.0), [1.0, 0.0])
    assert not accepts(0.5, 0.5, 1.0, 1.0)  # strict: u * Q = omega * P is a rejection


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_a_residual_without_mass_is_p_and_says_so(noise: float) -> None:
    p = np.array([[0.25, 0.25, 0.5, 0.0]], np.float32)
    q = p + np.array([noise, -noise, 0, 0], np.float32)
    weights, degenerate = residual(p, q, 1.0, "optimal")
    assert degenerate.tolist() == [True]
    np.testing.assert_array_equal(weights, p)


def test_rows_are_degenerate_one_by_one() -> None:
    p = np.array([[0.5, 0.5], [0.9, 0.1]])
    q = np.array([[0.5, 0.5], [0.1, 0.9]])
    weights, degenerate = residual(p, q, np.array([[1.0], [1.0]]), "optimal")
    assert degenerate.tolist() == [True, False]
    np.testing.assert_allclose(weights, [[0.5, 0.5], [0.8, 0.0]])


def test_a_nan_stays_visible() -> None:
    weights, _ = residual(np.array([np.nan, 0.5]), np.array([0.5, 0.5]), 1.0, "optimal")
    assert np.isnan(weights).any()
