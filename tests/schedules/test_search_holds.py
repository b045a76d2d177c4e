"""The budget is kept on images that were not recorded, as often as stated: many small samples of a known population.

Each sample of 24 images is tuned on, and the schedule's true KL is that of the whole population. With a confidence of
95% at most 7 of 60 samples may be over the budget: a rule that is over it 5% of the time passes with a probability of
99%, one that is over it 25% of the time with 1%. The rules of before, rounds held out in place of images, with or
without a bound from rounds as if they were independent, fail the same test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law
from coolsd_rt.law.traces import RecordedRounds, outlook
from coolsd_rt.schedules import search
from coolsd_rt.schedules.budget import Budget
from coolsd_rt.schedules.shapes import FREE, Omegas, ScheduleShape, families
from tests.schedules.population import population, sample

IMAGES, SAMPLE, DRAWS, ALLOWED = 600, 24, 60, 7
WHOLE = population(IMAGES)
Rule = Callable[[RecordedRounds, Budget], Omegas]


@pytest.fixture(autouse=True)
def few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are enough for a choice, and a free omega per position without a search."""
    monkeypatch.setattr(search, "families", lambda length: [s for s in families(length) if s.name == "uniform"])
    monkeypatch.setattr(search, "_free", lambda *_: ScheduleShape(FREE, lambda t: (1 + t, 1 + 0.6 * t)))


def samples(seed: int, size: int = SAMPLE) -> Iterator[RecordedRounds]:
    rng = np.random.default_rng(seed)
    while True:
        yield sample(WHOLE, rng.choice(IMAGES, size, replace=False))


def tuned(windows: RecordedRounds, budget: Budget) -> Omegas:
    return search.tune(windows, budget).best.omegas


def rounds_held_out(windows: RecordedRounds, budget: Budget) -> Omegas:
    """As it was: every image has rounds on both sides, and the estimate of one side is brought to the budget."""
    held = np.arange(len(windows.drafts)) // 32 % 2 == 1
    part = RecordedRounds(windows.target[held], windows.draft[held], windows.drafts[held], windows.num_drafts[held])
    low, high = 0.0, 8.0
    for _ in range(20):
        middle = (low + high) / 2
        within = budget.of(outlook(part, Law((1 + middle,) * 2))) < budget.value
        low, high = (middle, high) if within else (low, middle)
    return (1 + low,) * 2


def rounds_independent(windows: RecordedRounds, budget: Budget) -> Omegas:
    """With a bound, but every round an observation of its own."""
    return tuned(replace(windows, image=np.arange(len(windows.drafts))), budget)


def over(rule: Rule, budget: Budget, draws: int = DRAWS, seed: int = 3) -> int:
    """In how many of the samples the schedule's truth is over the budget; counted no further than it takes to fail."""
    count = 0
    for _, windows in zip(range(draws), samples(seed), strict=False):
        count += budget.of(outlook(WHOLE, Law(rule(windows, budget)))) > budget.value
        if count > ALLOWED:
            break
    return count


def test_the_kl_is_kept_on_images_that_were_not_recorded() -> None:
    assert over(tuned, Budget("kl", 0.02)) <= ALLOWED


def test_so_is_the_total_variation() -> None:
    """A third of the samples, and as much power against a rule that fails half of the time."""
    assert over(tuned, Budget("tv", 0.03), draws=20) <= 3


@pytest.mark.parametrize("rule", [rounds_held_out, rounds_independent])
def test_the_rules_of_before_fail_that_test(rule: Rule) -> None:
    assert over(rule, Budget("kl", 0.02)) > ALLOWED


def test_less_confidence_uses_more_of_the_budget() -> None:
    windows = next(samples(5))
    used = [outlook(WHOLE, Law(tuned(windows, Budget("kl", 0.02, c)))).kl_per_token for c in (None, 0.8, 0.95, 0.99)]
    assert used == sorted(used, reverse=True)
    assert used[-1] < 0.8 * used[0]


def test_the_bound_is_within_the_budget_and_near_it() -> None:
    budget = Budget("kl", 0.02)
    found = search.tune(next(samples(6)), budget)
    for judged in found.judged:
        assert 0.0198 < budget.bound(judged.outlook) < 0.02
        assert judged.outlook.kl_per_token < 0.02
    document = found.as_dict()
    assert document["confidence"] == 0.95
    low, high = document["best"]["intervals"]["kl_per_token"]
    assert low < document["best"]["kl_per_token"] < high < 0.02
    assert f"at most {high:.4g} with 95% confidence" in found.promise


def test_as_many_images_as_it_asks_for_use_nine_tenths_of_the_budget() -> None:
    """The number is an estimate from the few that were recorded: right within a factor of two."""
    few = search.tune(next(samples(7)), Budget("kl", 0.02)).images
    assert (few.fitted, few.held_out) == (8, 16)
    assert few.needed is not None
    assert few.needed > 2 * few.recorded
    many = search.tune(next(samples(8, few.needed)), Budget("kl", 0.02))
    assert many.images.needed is not None
    assert 0.5 < many.images.needed / few.needed < 2
    assert 0.85 < many.best.outlook.kl_per_token / 0.02 < 0.95


def test_a_sample_that_is_enough_is_not_asked_for_more() -> None:
    found = search.tune(next(samples(4, 300)), Budget("kl", 0.02))
    assert found.advice is None
    few = search.tune(next(samples(7)), Budget("kl", 0.02))
    assert few.advice is not None
    assert f"-n {few.images.needed}" in few.advice


@pytest.mark.parametrize("count", [1, 2, 15])
def test_too_few_images_are_refused_with_how_many_it_takes(count: int) -> None:
    with pytest.raises(UserError, match=f"at least 16 images, found {count}; record more: -n [0-9]+") as caught:
        search.tune(next(samples(9, count)), Budget("kl", 0.02))
    asked = int(str(caught.value).split("-n ")[1].split(",")[0])
    assert asked == 16 if count == 1 else asked >= 16
    with pytest.raises(UserError, match="found 0"):
        search.tune(replace(WHOLE, image=None), Budget("kl", 0.02))


def test_images_are_held_out_whole() -> None:
    from coolsd_rt.schedules.shapes import split

    windows = next(samples(10))
    fit, held = split(windows, 1 / 3)
    assert fit.image is not None
    assert held.image is not None
    assert not set(fit.image) & set(held.image)
    assert len(set(fit.image)) == 8
    assert len(fit.drafts) + len(held.drafts) == len(windows.drafts)
    # At random: prompts come in turns, and every third image would be one of three prompts.
    assert len({int(i) % 3 for i in fit.image}) == 3


@pytest.mark.parametrize("confidence", [0.0, 0.4, 1.0, 1.5, float("nan")])
def test_a_confidence_out_of_range_is_refused(confidence: float) -> None:
    with pytest.raises(UserError, match=r"the confidence: expected a number from 0\.5 to 0\.999"):
        Budget("kl", 0.02, confidence).check()
