"""Errors of figures over images: an image is one observation, whatever its rounds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from coolsd_rt.law import Law
from coolsd_rt.law.clusters import RatioEstimate, sums
from coolsd_rt.law.traces import RecordedRounds, outlook
from tests.schedules.population import population, sample

LAW = Law((1.6, 1.3))


def test_a_ratio_and_its_error_are_those_of_the_jackknife() -> None:
    rng = np.random.default_rng(0)
    numerator, denominator = rng.gamma(2.0, size=300), rng.uniform(1, 2, 300)
    found = RatioEstimate.of(numerator, denominator)
    assert found.value == pytest.approx(numerator.sum() / denominator.sum())
    without = (numerator.sum() - numerator) / (denominator.sum() - denominator)
    jackknife = math.sqrt(299 / 300 * ((without - without.mean()) ** 2).sum())
    assert found.error == pytest.approx(jackknife, rel=0.02)
    assert found.skewness > 0.3
    assert math.isnan(RatioEstimate.of(np.ones(1), np.ones(1)).error)
    assert math.isnan(RatioEstimate.of(np.array([1.0, math.inf]), np.ones(2)).error)


def test_sums_are_over_the_rounds_of_each_image() -> None:
    image = np.array([7, 3, 7, 7])
    found = sums(image, *(np.arange(4.0) + k for k in range(4)))
    assert found.rounds.tolist() == [1, 3]
    assert found.tokens.tolist() == [1, 5]
    assert found.tv_round.tolist() == [4, 14]


def test_more_rounds_of_the_same_images_say_nothing_more() -> None:
    """Each round twice: the same figures with the same errors. Rounds as observations would seem 1.4 times as good."""
    windows = sample(population(40), range(40))
    twice = RecordedRounds(
        *(np.concatenate([a, a]) for a in (windows.target, windows.draft, windows.drafts, windows.num_drafts))
    )
    assert windows.image is not None
    once, again = (
        outlook(w, LAW) for w in (windows, replace(twice, image=np.concatenate([windows.image, windows.image])))
    )
    assert once.images is not None
    assert again.images is not None
    for figure in ("accept_length", "kl_per_token", "tv_bound_per_token", "tv_of_a_round"):
        a, b = getattr(once.images, figure), getattr(again.images, figure)
        assert (a.value, a.error, a.images) == pytest.approx((b.value, b.error, b.images))
    for mine, theirs in (
        ("kl_per_token", "kl_per_token"),
        ("tv_bound_per_token", "tv_bound_per_token"),
        ("accept_length", "accept_length"),
        ("tv_of_a_round", "tv_round"),
    ):
        assert getattr(once.images, mine).value == pytest.approx(getattr(once, theirs))


def test_errors_are_the_spread_of_fresh_samples() -> None:
    """Over 200 samples of 30 images: the figures' own spread. Rounds as observations would say less than half."""
    whole, rng = population(500), np.random.default_rng(1)
    values, errors, naive = [], [], []
    for _ in range(200):
        windows = sample(whole, rng.choice(500, 30))  # with replacement: of the population that these are
        found = outlook(windows, LAW).images
        rounds = outlook(replace(windows, image=np.arange(len(windows.drafts))), LAW).images
        assert found is not None
        assert rounds is not None
        values.append(found.kl_per_token.value)
        errors.append(found.kl_per_token.error)
        naive.append(rounds.kl_per_token.error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)
    assert np.mean(naive) < 0.6 * np.std(values)


def test_without_images_there_is_no_error() -> None:
    windows = sample(population(20), range(20))
    found = outlook(replace(windows, image=None), LAW)
    assert found.images is None
    assert math.isnan(found.tv_round_error)
