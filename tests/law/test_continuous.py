"""The law of continuous tokens on two-step heads of one channel, by quadrature: one token, and two.

The target's density is integrated by scipy's adaptive quadrature, which shares nothing with the package's nodes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from coolsd_rt.arrays import Floats64
from coolsd_rt.law.continuous import LastStep, figures, reflect
from coolsd_rt.law.continuous.closed_forms import ResidualLine
from coolsd_rt.law.continuous.gaussians import log_ratio
from coolsd_rt.law.continuous.quadrature import (
    Nodes,
    ScalarHead,
    ScalarRule,
    distances,
    position_law,
    two_token_law,
)
from coolsd_rt.law.continuous.rule import keep_probability
from tests.law.continuous_heads import DRAFTS, TARGET, X, mean_over_pairs
from tools.paper.two_steps import TwoSteps

PRECISION = 1e-10
W = Nodes.normal()
EDGES = np.linspace(-9, 9, 181)
LOSSLESS = (0.0, 0.3, 0.9, 1.0)
RELAXED = (1.2, 3.0)
drafts = pytest.mark.parametrize("draft", DRAFTS.values(), ids=DRAFTS)


def close(found: Floats64, wanted: Floats64 | float, atol: float = PRECISION) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@cache
def density_at(model: TwoSteps, value: float) -> float:
    def integrand(w: float) -> float:
        apart = (value - float(model.last_mean(np.array(w)))) / model.last
        return math.exp(-0.5 * (w**2 + apart**2)) / (2 * math.pi * model.last)

    return float(integrate.quad(integrand, -9, 9, epsabs=1e-13, epsrel=1e-13, limit=400)[0])


def density(model: TwoSteps, x: Floats64) -> Floats64:
    """The target's own density of its token, by adaptive quadrature over w."""
    return np.array([density_at(model, float(value)) for value in x])


def integral(function: Callable[[Any], Any], kinks: Callable[[Any], Any]) -> float:
    """The integral from -8 to 8 of a function that bends where `kinks` is 0."""
    grid = np.linspace(-8, 8, 2001)
    signs = np.sign(kinks(grid))
    at = [optimize.brentq(kinks, grid[k], grid[k + 1], xtol=1e-14) for k in np.flatnonzero(signs[1:] * signs[:-1] < 0)]
    parts = itertools.pairwise([-8.0, *at, 8.0])
    return float(sum(integrate.quad(function, a, b, epsabs=1e-13, limit=200)[0] for a, b in parts))


def fixed(mean: float) -> ScalarHead:
    """A head of deviation 1 whose last step has one mean."""
    return ScalarHead(lambda w: np.full(len(w), mean), 1.0)


def following(first: float | None, draft: TwoSteps) -> tuple[ScalarHead, ScalarHead]:
    """The heads of two tokens: the second's condition is a nonlinear function of the first's value."""
    shift = 0.0 if first is None else float(np.tanh(first))
    return tuple(replace(model, z=model.z + shift).head for model in (TARGET, draft))  # type: ignore[return-value]


@drafts
@pytest.mark.parametrize("omega", LOSSLESS)
def test_one_token_has_the_targets_density(draft: TwoSteps, omega: float) -> None:
    law = position_law(X, TARGET.head, draft.head, ScalarRule(omega), W.points)
    truth = density(TARGET, X)
    assert truth.max() > 0.1
    close(W.weights @ law.out, truth)
    close(law.retry, 1 - law.acceptance)  # a rejection takes 1 / P(rejected) tries


@drafts
@pytest.mark.parametrize("omega", RELAXED)
@pytest.mark.parametrize("w", [-1.3, 0.2, 1.7])
def test_relaxed_the_density_is_kept_and_the_rest_by_g_star(draft: TwoSteps, omega: float, w: float) -> None:
    """min(q, omega p) + (1 - a) [p - q]_+ / TV(p, q) for each w, a and TV by scipy, and a real deviation from p."""
    law = position_law(X, TARGET.head, draft.head, ScalarRule(omega), np.array([w]))
    mean_p, mean_q = (float(model.last_mean(np.array(w))) for model in (TARGET, draft))
    p, q = stats.norm(mean_p, TARGET.last).pdf, stats.norm(mean_q, draft.last).pdf
    rate = integral(lambda x: np.minimum(q(x), omega * p(x)), lambda x: q(x) - omega * p(x))
    tv = integral(lambda x: np.maximum(p(x) - q(x), 0), lambda x: q(x) - p(x))
    formula = np.minimum(q(X), omega * p(X)) + (1 - rate) * np.maximum(p(X) - q(X), 0) / tv
    close(law.out[0], formula)
    close(law.retry, tv)
    assert law.retry[0] > 1 - law.acceptance[0]  # a rejection takes fewer tries than 1 / P(rejected)
    found = distances(TARGET.head, draft.head, ScalarRule(omega), W, EDGES)
    assert found.tv > 0.005


@drafts
def test_two_tokens_have_the_targets_joint_density(draft: TwoSteps) -> None:
    x = X[2:-2:3]
    rules = (ScalarRule(0.8), ScalarRule(1.0))
    out, _ = two_token_law((x, x), lambda first: following(first, draft), rules, W)
    seconds = [density(replace(TARGET, z=TARGET.z + float(np.tanh(first))), x) for first in x]
    truth = density(TARGET, x)[:, None] * np.array(seconds)
    close(out, truth)
    assert np.abs(np.diff(np.array(seconds), axis=0)).max() > 0.1  # the second token does depend on the first
    relaxed = (ScalarRule(1.5), ScalarRule(1.0))
    assert np.abs(two_token_law((x, x), lambda first: following(first, draft), relaxed, W)[0] - truth).max() > 1e-3


def test_the_first_position_of_the_next_round_decides_after_a_rejection() -> None:
    """With omega 0 the first draft is never kept: the second token is relaxed by the first position's omega, 0 too."""
    draft, x = DRAFTS["a wider draft"], X[4:9]
    out, truth = two_token_law((x, x), lambda first: following(first, draft), (ScalarRule(0.0), ScalarRule(9.0)), W)
    close(out, truth)


def test_equal_models_accept_all() -> None:
    for omega in (1.0, 1.7):
        law = position_law(X, TARGET.head, TARGET.head, ScalarRule(omega), W.points)
        close(law.acceptance, 1.0)
        close(law.redrawn, 0.0)
        close(W.weights @ law.kept, density(TARGET, X))


def test_the_reflection_moves_what_is_rejected_to_what_is_missing() -> None:
    """The mirror image is its own inverse: the density of a replacement y is that of the rejected x behind it."""
    x, w = X[:, None], np.array([-1.0, 0.4, 1.9])
    draft = DRAFTS["equal deviations"]
    for value in w:
        p, q = (model.head.last_step(np.full(len(X), value)) for model in (TARGET, draft))
        behind = reflect(x, q, p)  # the x whose mirror image is this y
        close(reflect(behind, p, q), x, atol=1e-12)
        q_at, q_behind = (stats.norm.pdf(at, q.mean, 0.5)[:, 0] for at in (x, behind))
        keep, lost = (keep_probability(log_ratio(at, p, q), 1.0) for at in (x, behind))
        close(q_at * keep + q_behind * (1 - lost), stats.norm.pdf(x, p.mean, 0.5)[:, 0], atol=PRECISION)


@pytest.mark.parametrize("omega", [0.0, 0.3, 1.0, 1.2, 3.0])
@pytest.mark.parametrize("delta", [1e-3, 0.4, 2.0, 9.0])
def test_the_line_has_the_distribution_of_g_star(omega: float, delta: float) -> None:
    """Its integral beyond any t by scipy's quadrature of [p - min(q, omega p)]_+, and its quantiles at the uniform."""
    line = ResidualLine.of(np.array([delta]), omega)

    def weight(t: float) -> float:
        p, q = stats.norm.pdf(t, delta), stats.norm.pdf(t)
        return float(max(0.0, p - min(q, omega * p)))

    edge = float(np.clip(line.edge[0], -12, delta + 12))
    for t in (-2.0, 0.3 * delta, 0.5 * delta, delta, delta + 2):
        parts = sorted({t, max(t, edge), delta + 12})
        whole = sum(integrate.quad(weight, a, b, epsabs=1e-14)[0] for a, b in itertools.pairwise(parts))
        assert float(line.beyond(np.array([t]))[0]) == pytest.approx(whole, abs=1e-12)
    for u in (0.0, 1e-6, 0.3, 0.5, 0.999, 1 - 2**-24):
        at = line.quantile(np.array([u]))
        below = line.weight - line.beyond(at)
        close(below, u * line.weight, atol=1e-13)


@pytest.mark.parametrize("omega", [0.0, 0.4, 1.0, 1.3, 8.0])
def test_figures_of_equal_deviations_are_those_of_the_quadrature(omega: float) -> None:
    """Acceptance, share of tries, TV and KL of a position in d = 3, from the means' distance alone."""
    between = np.array([[0.0, 0, 0], [1e-3, 0, 0], [0.3, -0.2, 0.1], [2, 1, -1.0], [20, 0, 9.0]])
    deviation = np.array([0.5, 0.1, 0.5, 0.7, 2.0])
    found = figures(LastStep(between, deviation), LastStep(np.zeros((5, 3)), deviation), omega)
    for row, delta in enumerate(np.sqrt((between**2).sum(1)) / deviation):
        edges = np.sort(np.append(np.linspace(-12, delta + 12, 600), delta / 2))
        if delta > 0 and omega > 0:
            edges = np.sort(np.append(edges, np.clip(delta / 2 - np.log(omega) / delta, -12, delta + 12)))
        x = Nodes.of(edges, 10)
        law = position_law(x.points, fixed(float(delta)), fixed(0.0), ScalarRule(omega), np.zeros(1))
        out, p = law.out[0], law.target[0]
        seen = (p > 1e-300) & (out > 1e-300)
        kl = float((out[seen] * np.log(out[seen] / p[seen])) @ x.weights[seen])
        values = np.array([found.acceptance[row], found.retry[row], found.tv[row]])
        wanted = np.array([law.acceptance[0], law.retry[0], 0.5 * float(np.abs(out - p) @ x.weights)])
        close(values, wanted, atol=1e-11)
        assert found.kl is not None
        assert found.kl[row] == pytest.approx(kl, abs=1e-10)


def test_acceptance_at_omega_one_is_the_complementary_error_function() -> None:
    from scipy.special import erfc

    p, q = LastStep(np.array([[1.0, 2.0]]), np.array([0.8])), LastStep(np.array([[0.5, 1.0]]), np.array([0.8]))
    wanted = erfc(np.sqrt(1.25) / (2 * np.sqrt(2) * 0.8))
    close(figures(p, q, 1.0).acceptance, wanted, atol=1e-15)


def test_shared_noise_raises_acceptance_and_leaves_the_law() -> None:
    """Draft and target with noise of their own: the same law, fewer accepted drafts."""
    draft = replace(TARGET, z=0.35, first=0.65)
    out, rate = mean_over_pairs(TARGET.reading(0), draft.reading(1))
    close(out, density(TARGET, X))
    shared = position_law(X, TARGET.head, draft.head, ScalarRule(), W.points)
    assert W.weights @ shared.acceptance > 1.2 * rate
