"""Statistics of paired images, on made-up images whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from coolsd_rt.metrics import frechet
from tools.paper.paired import (
    Bools,
    Floats,
    Interval,
    LawImages,
    counts,
    holm,
    mcnemar,
    mcnemar_power,
    ratio,
    residuals,
    share,
    smallest,
    smallest_share,
)
from tools.paper.paired_frechet import FrechetPairs
from tools.paper.power_plan import Plan, plan_of
from tools.paper.power_report import report_of

TOKENS = 100.0


def law(name: str, rounds: Floats, correct: Bools | None = None, features: Floats | None = None) -> LawImages:
    return LawImages(name, name, np.full(len(rounds), TOKENS), rounds, correct, features)


def pair(random: np.random.Generator, images: int, faster: float) -> tuple[LawImages, LawImages]:
    """Two laws whose rounds share what the image needs; the second needs `faster` rounds less on average."""
    common = random.normal(40, 6, images)
    first, second = (common + random.normal(0, 2, images) for _ in range(2))
    return law("lossless", first), law("relaxed", second - faster)


def difference(pair: tuple[LawImages, LawImages], draws: int = 200) -> Interval:
    weights = counts(len(pair[0].rounds), draws)
    samples = [ratio(x.tokens, x.rounds, weights) for x in pair]
    return Interval.of(pair[1].accept_length - pair[0].accept_length, samples[1] - samples[0])


def test_an_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    """300 repetitions: 95% of them have a standard error of 1.3%."""
    random, truth = np.random.default_rng(0), TOKENS / 38 - TOKENS / 40
    found = [difference(pair(random, 120, 2.0)) for _ in range(300)]
    assert 0.91 < np.mean([f.low <= truth <= f.high for f in found]) < 0.985
    assert np.mean([f.error for f in found]) == pytest.approx(np.std([f.value for f in found]), rel=0.12)


def test_the_p_value_is_small_as_often_as_it_says_without_a_difference() -> None:
    random = np.random.default_rng(1)
    found = [difference(pair(random, 120, 0.0)).p for _ in range(300)]
    assert 0.015 < np.mean([p < 0.05 for p in found]) < 0.09
    assert 0.4 < np.mean(found) < 0.6


def test_paired_images_have_a_smaller_error_than_others() -> None:
    """What both laws share of an image has three times the deviation of what they do not."""
    first, second = pair(np.random.default_rng(2), 400, 2.0)
    paired = difference((first, second))
    weights = counts(400, 300, seed=1)
    apart = ratio(second.tokens, second.rounds, weights) - ratio(first.tokens, first.rounds, counts(400, 300))
    assert paired.error < 0.5 * apart.std()
    by_image = residuals(second.tokens, second.rounds) - residuals(first.tokens, first.rounds)
    assert paired.error == pytest.approx(by_image.std() / math.sqrt(400), rel=0.12)


def test_the_distance_is_the_metrics_with_repeated_rows() -> None:
    random = np.random.default_rng(3)
    real, laws = random.normal(size=(24, 3)), {name: random.normal(k, 1, (12, 3)) for k, name in enumerate("ab")}
    pairs = FrechetPairs(laws, real)
    weights = counts(12, 3)
    for row, found in zip([np.ones(12, int), *weights], [pairs.value(), *pairs.bootstrap(weights)], strict=True):
        at = np.repeat(np.arange(12), row)
        rows = np.concatenate([at, at + 12])  # references k and k + 12 go with image k
        for name, got in zip(laws, found, strict=True):
            expected = frechet.distance(torch.from_numpy(real[rows]), torch.from_numpy(laws[name][at]))
            assert got == pytest.approx(expected, abs=1e-6)


def cloud(random: np.random.Generator, images: int, shift: float) -> tuple[FrechetPairs, float]:
    """Features of plain references, a lossless law, and one with a shifted mean; the true difference of distances."""
    prompt = random.normal(0, 1, (images, 2))
    real, exact, moved = (prompt + random.normal(0, 1, (images, 2)) for _ in range(3))
    return FrechetPairs({"lossless": exact, "moved": moved + np.array([shift, 0.0])}, real), shift**2


def apart(pairs: FrechetPairs, draws: int) -> Interval:
    samples, value = pairs.bootstrap(counts(pairs.images, draws)), pairs.value()
    return Interval.of(float(value[1] - value[0]), samples[:, 1] - samples[:, 0], corrected=True)


def test_the_interval_of_a_difference_of_distances_covers_the_truth() -> None:
    """80 repetitions: 95% of them have a standard error of 2.4%."""
    random, found, truth = np.random.default_rng(4), list[Interval](), 0.0
    for _ in range(80):
        pairs, truth = cloud(random, 150, 0.4)
        found.append(apart(pairs, 100))
    assert np.mean([f.low <= truth <= f.high for f in found]) > 0.88
    values = [f.value for f in found]
    assert np.mean(values) == pytest.approx(truth, abs=float(3.5 * np.std(values)) / math.sqrt(len(values)))
    assert np.mean([f.error for f in found]) == pytest.approx(np.std(values), rel=0.25)


def test_without_a_difference_the_error_of_distances_is_too_large_rather_than_too_small() -> None:
    """A distance is a square: near 0 its bootstrap has up to three times its variance. 60 repetitions."""
    random, found = np.random.default_rng(10), list[Interval]()
    for _ in range(60):
        found.append(apart(cloud(random, 150, 0.0)[0], 60))
    assert 1.0 < np.mean([f.error for f in found]) / np.std([f.value for f in found]) < 2.2
    assert np.mean([f.low <= 0 <= f.high for f in found]) > 0.93


def test_the_correction_takes_the_upward_bias_from_a_distance() -> None:
    """The true distance is 0; all 20 estimates are above it."""
    random, raw, corrected = np.random.default_rng(5), list[float](), list[float]()
    for _ in range(20):
        pairs, _ = cloud(random, 60, 0.0)
        samples, value = pairs.bootstrap(counts(60, 60)), float(pairs.value()[0])
        raw.append(value)
        corrected.append(Interval.of(value, samples[:, 0], corrected=True).value)
    assert min(raw) > 0
    assert abs(np.mean(corrected)) < 0.35 * np.mean(raw)


def test_holm_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_mcnemar_counts_the_images_that_one_law_alone_gets_right() -> None:
    base = np.array([True] * 30 + [False] * 10)
    found = mcnemar(np.array([True] * 28 + [False] * 2 + [True] * 9 + [False]), base)
    assert (found.gained, found.lost) == (9, 2)
    assert found.p == pytest.approx(2 * sum(math.comb(11, k) for k in range(3)) / 2**11)
    assert mcnemar(base, base).p == 1.0


def test_the_planned_share_is_found_with_the_planned_probability() -> None:
    """600 repetitions of the exact test: 0.9 has a standard error of 1.2%."""
    images, discordant, random = 1000, 0.12, np.random.default_rng(6)
    planned = smallest_share(images, discordant)
    chances = [(discordant + planned) / 2, (discordant - planned) / 2, 1 - discordant]
    found = 0
    for gained, lost, _ in random.multinomial(images, chances, 600):
        correct = np.array([True] * gained + [False] * lost)
        found += mcnemar(correct, ~correct).p < 0.05
    assert found / 600 == pytest.approx(0.9, abs=0.04)
    assert mcnemar_power(images, discordant, 0.0) <= 0.05
    assert math.isnan(smallest_share(20, 0.1))
    assert smallest_share(images, discordant, 0.05 / 8) > planned


def test_the_planned_accept_length_is_found_with_the_planned_probability() -> None:
    """A plan from 200 images for 100; 300 sweeps with that true difference: 0.9 has a standard error of 1.7%."""
    random = np.random.default_rng(7)
    pilot = pair(random, 200, 0.0)
    plan = plan_of(pilot, 0, Plan(images=100, comparisons=4))
    row = plan["comparisons_of_the_pilot"]["accept_length"]["relaxed"]
    faster = 40 - TOKENS / (TOKENS / 40 + row["smallest"])
    found = [difference(pair(random, 100, faster)).p < 0.05 for _ in range(300)]
    assert np.mean(found) == pytest.approx(0.9, abs=0.09)  # the pilot's own error has an error of 5%
    assert row["smallest"] < row["smallest_holm"] == plan["largest"]["accept_length"]["smallest_holm"]
    assert row["smallest"] == pytest.approx(smallest(row["pilot_error"] * math.sqrt(2)))


def test_the_planned_distance_is_found_with_the_planned_probability() -> None:
    """A plan from a pilot of 300 images whose law lies about where the smallest difference is; 80 sweeps."""
    random = np.random.default_rng(8)
    pilot, _ = cloud(random, 300, 0.45)
    laws = [law(name, np.ones(300), None, features) for name, features in pilot.laws.items()]
    plan = plan_of(laws, 0, Plan(images=200, comparisons=1), pilot.real, draws=200)
    row = plan["comparisons_of_the_pilot"]["frechet"]["moved"]
    found = [apart(cloud(random, 200, math.sqrt(row["smallest"]))[0], 100).p < 0.05 for _ in range(80)]
    assert 0.75 < np.mean(found) <= 1.0
    assert -1.2 < plan["frechet_scaling"]["exponent"] < -0.2


def test_a_planted_difference_is_found_and_another_is_not() -> None:
    random, images = np.random.default_rng(9), 500
    common = random.normal(40, 6, images)
    right = random.random(images) < 0.9
    features = random.normal(0, 1, (images, 2))
    worse = right & (random.random(images) < 0.93)
    laws = [
        law("lossless", common, right, features + random.normal(0, 0.5, (images, 2))),
        law("same", random.permuted(common), random.permuted(right), features + random.normal(0, 0.5, (images, 2))),
        law("planted", common - 2, worse, features + random.normal(0.4, 0.5, (images, 2))),
    ]
    report = report_of(laws, 0, features + random.normal(0, 0.5, (images, 2)), draws=400)
    assert set(report["figures"]) == {"accept_length", "retrieval", "frechet"}
    for figure, rows in report["figures"].items():
        assert rows["lossless"]["difference"] is None
        assert rows["planted"]["p_holm"] < 0.02, figure
        assert rows["same"]["p_holm"] > 0.05, figure
        assert rows["same"]["p"] <= rows["same"]["p_holm"]
    planted = {figure: rows["planted"]["difference"] for figure, rows in report["figures"].items()}
    assert planted["accept_length"]["low"] > 0 > planted["retrieval"]["high"]
    assert planted["frechet"]["low"] < 2 * 0.4**2 < planted["frechet"]["high"]
    assert share(right, counts(images, 50)).mean() == pytest.approx(right.mean(), abs=0.01)
