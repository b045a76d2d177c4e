"""Planted bugs in the law of continuous tokens: each has to fail the check that the right rule passes at 1e-10.

The check of a law is its largest deviation from the target's density at X; of the bound on tries, that the deviation is
no larger than what is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from coolsd_rt.arrays import Floats64
from coolsd_rt.law.continuous.gaussians import LastStep, RatioForm, log_ratio
from coolsd_rt.law.continuous.published import code_rule, log_sigma, paper_rule
from coolsd_rt.law.continuous.quadrature import (
    Fallback,
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
VISIBLE = 1e-3
W = Nodes.normal()
EDGES = np.linspace(-9, 9, 181)
WIDER = DRAFTS["a wider draft"]
LOG_SIGMA = log_sigma([TARGET.first], [WIDER.first])


def truth() -> Floats64:
    return np.asarray(W.weights @ position_law(X, TARGET.head, WIDER.head, ScalarRule(), W.points).target)


def deviation(out: Floats64) -> float:
    return float(np.abs(out - truth()).max())


def of_rule(rule: ScalarRule) -> Floats64:
    return np.asarray(W.weights @ position_law(X, TARGET.head, WIDER.head, rule, W.points).out)


def torn_guidance() -> Floats64:
    """The unconditional half of the target's guidance has noise of its own."""
    torn = ScalarHead(TARGET.torn_mean, TARGET.last)
    return mean_over_pairs(torn, WIDER.reading(0))[0]


def retried_with_noise_of_its_own() -> Floats64:
    """Acceptance under the shared noise, replacements under a state that is denoised again."""
    law = position_law(X, TARGET.head, WIDER.head, ScalarRule(), W.points)
    shape = law.redrawn / (1 - law.acceptance)[:, None]
    return np.asarray(W.weights @ law.kept + (W.weights @ (1 - law.acceptance)) * (W.weights @ shape))


def state_from_the_last_noise() -> Floats64:
    """Noise one step off: the target's first step takes the noise xi of the draft's last step, which made x."""
    nodes, out = Nodes.normal(6, 16, 7.5), np.zeros(len(X))
    torn, plain = TARGET.reading(1), WIDER.reading(0)
    for value, weight in zip(nodes.points, nodes.weights, strict=True):

        def rows(xi: Floats64, w: float = float(value)) -> tuple[LastStep, LastStep]:
            pairs = np.stack([np.full(len(xi), w), xi], axis=-1)
            return torn.last_step(pairs), plain.last_step(pairs)

        behind = (X - WIDER.last_mean(value)) / WIDER.last
        p, q = rows(behind)
        kept = stats.norm.pdf(behind) / WIDER.last * keep_probability(log_ratio(X[:, None], p, q), 1.0)
        p, q = rows(nodes.points)
        lost = 1 - keep_probability(log_ratio(q.at(nodes.points[:, None]), p, q), 1.0)
        pairs = np.stack([np.full(len(nodes.points), value), nodes.points], axis=-1)
        law = position_law(X, torn, plain, ScalarRule(), pairs)
        shape = law.redrawn / np.maximum(1 - law.acceptance, 1e-12)[:, None]
        out += weight * (kept + (nodes.weights * lost) @ shape)
    return out


BUGS: dict[str, Callable[[], Floats64]] = {
    "Sigma kept": lambda: of_rule(ScalarRule(form=RatioForm(log_factor=LOG_SIGMA))),
    "the paper's rule": lambda: of_rule(paper_rule(LOG_SIGMA)),
    "the published code": lambda: of_rule(code_rule(LOG_SIGMA)),
    "variance for deviation": lambda: of_rule(ScalarRule(form=RatioForm(squared=True))),
    "a temperature": lambda: of_rule(ScalarRule(form=RatioForm(temperature=42.0))),
    "noise not shared by the halves of guidance": torn_guidance,
    "noise not shared by acceptance and replacement": retried_with_noise_of_its_own,
    "the last step's noise in the target's state": state_from_the_last_noise,
}


def test_the_right_rule_passes() -> None:
    assert deviation(of_rule(ScalarRule())) < PRECISION


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_each_bug_is_seen(bug: Callable[[], Floats64]) -> None:
    assert deviation(bug()) > VISIBLE


def test_the_halves_that_share_their_noise_pass() -> None:
    """The same path over two numbers of noise, without the bug."""
    assert deviation(mean_over_pairs(TARGET.reading(0), WIDER.reading(0))[0]) < PRECISION


def test_noise_of_the_token_before_is_seen_in_the_joint_law_only() -> None:
    """Two positions with one number of noise: each token alone is right, both together are not."""
    first = position_law(X, TARGET.head, WIDER.head, ScalarRule(), W.points)
    second = position_law(X, replace(TARGET, z=1.0).head, replace(WIDER, z=1.2).head, ScalarRule(), W.points)
    reused = np.einsum("w,wx,wy->xy", W.weights, first.out, second.out)
    right = np.outer(W.weights @ first.target, W.weights @ second.target)
    assert np.abs(reused - right).max() > VISIBLE
    heads = (TARGET.head, WIDER.head), (replace(TARGET, z=1.0).head, replace(WIDER, z=1.2).head)
    rules = (ScalarRule(), ScalarRule())
    out, truth = two_token_law((X, X), lambda value: heads[0 if value is None else 1], rules, W)
    np.testing.assert_allclose(out, right, rtol=0, atol=PRECISION)
    np.testing.assert_allclose(truth, right, rtol=0, atol=PRECISION)


@pytest.mark.parametrize("bound", [1, 3, 20])
@pytest.mark.parametrize("draft", DRAFTS.values(), ids=DRAFTS)
def test_a_bound_costs_no_more_than_it_counts(draft: TwoSteps, bound: int) -> None:
    """The distance from P is at most the probability of a fallback, and below the stated bound; without one it is 0."""
    found = distances(TARGET.head, draft.head, ScalarRule(bound=bound), W, EDGES)
    assert 1e-12 < found.tv <= found.fallback
    assert found.tv < 1 / (np.e * (bound + 1))
    assert distances(TARGET.head, draft.head, ScalarRule(bound=10**6), W, EDGES).tv < 1e-4


@pytest.mark.parametrize("fallback", ["last", "zero"])
def test_a_fallback_that_is_not_counted_is_seen(fallback: Fallback) -> None:
    """A rule that ends its tries and reports none of it deviates by more than it counts, which is nothing."""
    rule = ScalarRule(bound=3, fallback=fallback)
    found = distances(TARGET.head, WIDER.head, rule, W, EDGES)
    counted = 0.0
    assert found.tv > counted + VISIBLE
    honest = distances(TARGET.head, WIDER.head, replace(rule, fallback="target"), W, EDGES)
    assert found.tv > honest.tv  # the last try, and zero, are worse than a fresh draw from P


def test_the_published_rule_is_the_exact_one_where_sigma_is_one() -> None:
    same = replace(WIDER, first=TARGET.first)
    rule = replace(paper_rule(log_sigma([TARGET.first], [same.first])), bound=None)
    law = position_law(X, TARGET.head, same.head, rule, W.points)
    np.testing.assert_allclose(W.weights @ law.out, W.weights @ law.target, rtol=0, atol=PRECISION)
