"""The sampler of the law of continuous tokens in d = 8, with stated power; its counts, its numbers and its errors.

The statistic. A rule that decides by p/q alone gives a law whose density out(x) / p(x) is a function of T(x): with
equal deviations T is the coordinate along the means' difference, with other deviations the distance from the point c on
that line at which log p/q has its turning point. For out = p h(T) the total variation of the two laws of T is that of
out and p, both E_p |h - 1| / 2: nothing is lost by looking at T alone. A bug that touches other coordinates is seen by
what it does to T, and by `test_the_other_coordinates_stay_normal`.

Power. U = F_p(T) is uniform under p; draws are counted in 20 bins of U, and chi-square is compared with its quantile at
a false alarm of 1e-4. Of all laws at a total variation of .005 between the bins, the one with the least chi-square
spreads it evenly: n times 4 * .005^2 is its noncentrality. At n = 600,000 that is 60, and it is found with probability
.966 (at a false alarm of 1e-3, 460,000 draws would do for .9). `test_the_power_is_as_stated` checks that figure, and
the rate at which such a law is found.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from coolsd_rt.arrays import Floats64, Ints
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.law.continuous import (
    LastStep,
    PositionVerdict,
    estimate,
    figures,
    keep_probability,
    log_density,
    log_ratio,
    redraw,
    reflect,
    replace_along,
    verify_position,
)
from coolsd_rt.runtime.gaussians import TryNumbers

D, DRAWS, CHUNK, BINS, FALSE_ALARM, TV = 8, 600_000, 50_000, 20, 1e-4, 0.005
MEAN_P = np.linspace(-0.4, 0.5, D)
MEAN_Q = 0.5 * MEAN_P + 0.05


class Generated:
    """Numbers of tries from NumPy's generator: many at once."""

    def __init__(self, rng: np.random.Generator, d: int = D) -> None:
        self._rng, self._d = rng, d

    def __call__(self, rows: Ints, attempt: int) -> tuple[Floats64, Floats64]:
        return self._rng.standard_normal((len(rows), self._d)), self._rng.random(len(rows))


def gaussians(rows: int, mean: Floats64, deviation: float) -> LastStep:
    return LastStep(np.broadcast_to(mean, (rows, len(mean))).copy(), np.full(rows, deviation))


def verdicts(s_p: float, s_q: float, omega: float, seed: int, draws: int = DRAWS) -> Iterator[PositionVerdict]:
    rng = np.random.default_rng(seed)
    p, q = gaussians(CHUNK, MEAN_P, s_p), gaussians(CHUNK, MEAN_Q, s_q)
    for _ in range(draws // CHUNK):
        x = q.at(rng.standard_normal((CHUNK, D)))
        yield verify_position(x, p, q, omega, rng.random((CHUNK, 2)), Generated(rng))


def uniform_of(tokens: Floats64, s_p: float, s_q: float) -> Floats64:
    """U = F_p(T) of tokens [n, d]."""
    if s_p == s_q:
        unit = (MEAN_P - MEAN_Q) / np.linalg.norm(MEAN_P - MEAN_Q)
        return np.asarray(stats.norm.cdf((tokens - MEAN_P) @ unit / s_p))
    centre = (s_q**2 * MEAN_P - s_p**2 * MEAN_Q) / (s_q**2 - s_p**2)
    squares = ((tokens - centre) ** 2).sum(-1) / s_p**2
    grid = np.quantile(squares, np.linspace(0, 1, 4001))  # its distribution function is slow: interpolated
    apart = ((MEAN_P - centre) ** 2).sum() / s_p**2
    return np.asarray(np.interp(squares, grid, stats.ncx2.cdf(grid, D, apart)))


def chi_square(counts: Floats64) -> float:
    expected = counts.sum() / BINS
    return float(((counts - expected) ** 2).sum() / expected)


LIMIT = float(stats.chi2.isf(FALSE_ALARM, BINS - 1))


def measured(s_p: float, s_q: float, omega: float, seed: int) -> float:
    counts = np.zeros(BINS)
    for found in verdicts(s_p, s_q, omega, seed):
        counts += np.bincount((uniform_of(found.tokens, s_p, s_q) * BINS).astype(int).clip(0, BINS - 1), minlength=BINS)
    return chi_square(counts)


def test_the_power_is_as_stated() -> None:
    assert stats.ncx2.sf(LIMIT, BINS - 1, DRAWS * 4 * TV**2) > 0.96
    shares = 1 / BINS + 2 * TV / BINS * np.resize([1, -1], BINS)  # at a total variation of .005
    assert 0.5 * np.abs(shares - 1 / BINS).sum() == pytest.approx(TV)
    rng = np.random.default_rng(1)
    found = np.array([chi_square(counts) > LIMIT for counts in rng.multinomial(DRAWS, shares, 1000)])
    assert found.mean() > 0.95
    false = np.array([chi_square(counts) > LIMIT for counts in rng.multinomial(DRAWS, np.full(BINS, 1 / BINS), 1000)])
    assert false.mean() <= 0.002


CASES = [(0.5, 0.5, 1.0), (0.5, 0.5, 0.6), (0.5, 0.6, 1.0), (0.5, 0.45, 0.7)]


@pytest.mark.parametrize(("s_p", "s_q", "omega"), CASES)
def test_tokens_in_eight_channels_have_the_targets_law(s_p: float, s_q: float, omega: float) -> None:
    assert measured(s_p, s_q, omega, seed=3) < LIMIT


@pytest.mark.parametrize(("s_p", "s_q", "omega"), [(0.5, 0.5, 1.1), (0.5, 0.6, 1.2)])
def test_a_relaxed_law_fails_it(s_p: float, s_q: float, omega: float) -> None:
    assert measured(s_p, s_q, omega, seed=3) > LIMIT


def test_the_reflection_of_another_omega_fails_it() -> None:
    """It is the residual of omega = 1 only: with the omega 0.6 it is biased, where `replace_along` is not."""
    rng, counts = np.random.default_rng(5), np.zeros(BINS)
    p, q = gaussians(DRAWS, MEAN_P, 0.5), gaussians(DRAWS, MEAN_Q, 0.5)
    x = q.at(rng.standard_normal((DRAWS, D)))
    kept = rng.random(DRAWS) < keep_probability(log_ratio(x, p, q), 0.6)
    tokens = np.where(kept[:, None], x, reflect(x, p, q))
    counts += np.bincount((uniform_of(tokens, 0.5, 0.5) * BINS).astype(int).clip(0, BINS - 1), minlength=BINS)
    assert chi_square(counts) > LIMIT


@pytest.mark.parametrize(("s_p", "s_q", "omega"), CASES)
def test_the_other_coordinates_stay_normal(s_p: float, s_q: float, omega: float) -> None:
    """A direction at right angles to the means' difference, and the squared length of all such: normal, chi-square."""
    tokens = np.concatenate([found.tokens for found in verdicts(s_p, s_q, omega, 7, 4 * CHUNK)])
    unit = (MEAN_P - MEAN_Q) / np.linalg.norm(MEAN_P - MEAN_Q)
    noise = (tokens - MEAN_P) / s_p
    across = noise - (noise @ unit)[:, None] * unit
    side = np.eye(D)[3] - unit[3] * unit
    assert stats.kstest(noise @ (side / np.linalg.norm(side)), "norm").pvalue > FALSE_ALARM
    assert stats.kstest((across**2).sum(-1), stats.chi2(D - 1).cdf).pvalue > FALSE_ALARM


@pytest.mark.parametrize(("s_p", "s_q", "omega"), [*CASES, (0.5, 0.5, 1.3), (0.5, 0.6, 1.3)])
def test_acceptance_and_tries_are_the_expected_ones(s_p: float, s_q: float, omega: float) -> None:
    found = list(verdicts(s_p, s_q, omega, 11, 4 * CHUNK))
    accepted = np.concatenate([each.accepted for each in found])
    tries = np.concatenate([each.tries for each in found])
    p, q = gaussians(1, MEAN_P, s_p), gaussians(1, MEAN_Q, s_q)
    noise = np.random.default_rng(2).standard_normal((4 * CHUNK, 1, D))
    expected = estimate(p, q, omega, noise)
    if s_p == s_q:
        exact = figures(p, q, omega)
        assert expected.errors is not None
        for name, error in zip(("acceptance", "retry", "tv"), expected.errors, strict=True):
            apart = abs(float(getattr(expected, name)[0] - getattr(exact, name)[0]))
            assert apart <= 4 * float(error[0]), name
        assert not tries.any()
        expected = exact
    rate = float(expected.acceptance[0])
    assert accepted.mean() == pytest.approx(rate, abs=0.008)
    if s_p != s_q:
        assert tries[~accepted].mean() == pytest.approx(1 / float(expected.retry[0]), rel=0.04)
        assert not tries[accepted].any()
        if omega <= 1:
            assert tries.mean() == pytest.approx(1.0, abs=0.03)  # a position costs one try, kept drafts included
        else:
            assert tries.mean() < 0.97


def test_equal_models_accept_all() -> None:
    p = gaussians(CHUNK, MEAN_P, 0.5)
    x = p.at(np.random.default_rng(0).standard_normal((CHUNK, D)))
    uniforms = np.full((CHUNK, 2), 1 - 2.0**-53)
    found = verify_position(x, p, gaussians(CHUNK, MEAN_P, 0.5), 1.0, uniforms, Generated(np.random.default_rng(0)))
    assert found.accepted.all()
    np.testing.assert_array_equal(found.tokens, x)


@pytest.mark.parametrize("between", [0.0, 1e-300, 1e-17, 1e-14, 1e-9])
@pytest.mark.parametrize("omega", [0.0, 0.5, 1.0, 1.0 + 2.0**-52, 2.0])
def test_nearly_equal_models_replace_within_reach(between: float, omega: float) -> None:
    """G* is a difference of equal numbers there; what replaces a token still lies where P has its mass."""
    x = gaussians(500, MEAN_P, 0.5).at(np.random.default_rng(0).standard_normal((500, D)))
    q, u = gaussians(500, np.zeros(D), 0.5), np.linspace(0, 1 - 2.0**-53, 500)
    p = gaussians(500, np.full(D, between), 0.5)
    tokens = replace_along(x, p, q, omega, u)
    assert np.abs(p.noise(tokens)).max() < 9
    assert np.isfinite(figures(p, q, omega).acceptance).all()


def test_distant_means_in_32_channels_reject_without_overflow() -> None:
    d = 32
    p, q = LastStep(np.full((3, d), 300.0), np.array([0.1, 0.1, 0.2])), LastStep(np.zeros((3, d)), np.full(3, 0.1))
    x = q.at(np.random.default_rng(0).standard_normal((3, d)))
    uniforms, omega = np.tile([0.0, 0.5], (3, 1)), np.array([1.0, 2.0, 1.0])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = verify_position(x, p, q, omega, uniforms, Generated(np.random.default_rng(0), d))
        assert log_density(x, p).max() < -1e7
    assert not found.accepted.any()
    assert found.tries.tolist() == [0, 0, 1]
    assert np.abs(p.noise(found.tokens)).max() < 6


def test_tokens_depend_on_the_numbers_of_their_own_position() -> None:
    """A row alone, and among others in another order, has the same token, tries and verdict; by all three ways."""
    seeds, positions, offsets = [5, 5, 9, 2], [0, 7, 7, 3], [0, 1, 1, 2]
    deviations, omegas = np.array([0.6, 0.5, 0.5, 0.45]), np.array([1.0, 1.0, 0.7, 1.2])
    x = MEAN_Q + np.array([[6.0], [2.0], [2.0], [0.7]]) * (MEAN_Q - MEAN_P)  # where Q is far above P
    uniforms = np.array([[0.999, 0.3], [0.999, 0.6], [0.999, 0.1], [0.999, 0.9]])

    def of(rows: list[int]) -> PositionVerdict:
        p, q = gaussians(len(rows), MEAN_P, 0.5), LastStep(np.tile(MEAN_Q, (len(rows), 1)), deviations[rows])
        keys = ([values[row] for row in rows] for values in (seeds, positions, offsets))
        numbers = TryNumbers(*keys, D)  # type: ignore[call-arg,arg-type]
        return verify_position(x[rows], p, q, omegas[rows], uniforms[rows], numbers)

    together = of([0, 1, 2, 3])
    assert not together.accepted.any()
    assert (together.tries > 0).tolist() == [True, False, False, True]
    for rows in itertools.permutations(range(4), 3):
        found = of(list(rows))
        for at, row in enumerate(rows):
            alone = of([row])
            np.testing.assert_array_equal(found.tokens[at], alone.tokens[0])
            assert found.tries[at] == alone.tries[0]


def test_each_try_has_numbers_of_its_own() -> None:
    """Tries 0, 1, ... of the open rows; the fallback is a draw from P with the numbers of try `bound`."""
    asked: list[tuple[int, list[int]]] = []

    def numbers(rows: Ints, attempt: int) -> tuple[Floats64, Floats64]:
        asked.append((attempt, rows.tolist()))
        never, kept = 1 - 2.0**-53, 0.0
        return np.full((len(rows), D), attempt / 10), np.where((rows == 1) & (attempt == 2), kept, never)

    p, q = gaussians(3, MEAN_P, 0.5), gaussians(3, MEAN_P - 0.3, 0.51)
    found = redraw(p, q, 1.0, numbers, bound=4)
    assert asked == [(0, [0, 1, 2]), (1, [0, 1, 2]), (2, [0, 1, 2]), (3, [0, 2]), (4, [0, 2])]
    assert found.tries.tolist() == [4, 3, 4]
    assert found.fallback.tolist() == [True, False, True]
    np.testing.assert_allclose(p.noise(found.tokens)[:, 0], [0.4, 0.2, 0.4], atol=1e-12)


def test_the_bound_is_kept_and_counted() -> None:
    """Near models: a try stays with probability M, so (1 - M)^bound of the rows fall back, and only they."""
    count, bound = 20_000, 5
    p, q = gaussians(count, MEAN_P, 0.5), gaussians(count, MEAN_P + 0.02, 0.51)
    found = redraw(p, q, 1.0, Generated(np.random.default_rng(3)), bound)
    one, noise = np.arange(1), np.random.default_rng(4).standard_normal((200_000, 1, D))
    retry = float(estimate(p.rows(one), q.rows(one), 1.0, noise).retry[0])
    share = (1 - retry) ** bound
    assert 0.2 < share < 0.95
    assert found.fallback.mean() == pytest.approx(share, abs=0.015)
    assert (found.tries[found.fallback] == bound).all()
    assert found.tries.max() == bound
    with pytest.raises(UserError, match="bound on tries"):
        redraw(p, q, 1.0, Generated(np.random.default_rng(3)), 0)


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [([[0.0, np.nan]], [1.0]), ([[0.0, 0.0]], [0.0]), ([[0.0, 0.0]], [-1.0]), ([[0.0, 0.0]], [[1.0]]), ([0.0], [1.0])],
)
def test_gaussians_that_are_none_are_refused(mean: list[float], deviation: list[float]) -> None:
    with pytest.raises(CoolsdError, match="last step"):
        LastStep(np.array(mean), np.array(deviation))


def test_drafts_and_omegas_that_are_none_are_refused() -> None:
    p = gaussians(1, MEAN_P, 0.5)
    numbers = Generated(np.random.default_rng(0))
    with pytest.raises(CoolsdError, match="continuous drafts"):
        verify_position(np.full((1, D), np.nan), p, p, 1.0, np.zeros((1, 2)), numbers)
    for omega in (-0.1, np.nan, 1e300):
        with pytest.raises(UserError, match="omega"):
            verify_position(np.zeros((1, D)), p, p, omega, np.zeros((1, 2)), numbers)
    with pytest.raises(UserError, match="estimate"):
        figures(p, gaussians(1, MEAN_P, 0.6), 1.0)
