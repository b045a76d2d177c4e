"""Which plan is taken, with trials on a clock of their own: a plan is its tokens and seconds a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from coolsd_rt.errors import CoolsdError
from coolsd_rt.workflows.plans import ENOUGH, PAIRS, PLAIN, Choice, DraftPlan, Trial, choose

TOKENS = 256


@dataclass
class Machine:
    """Draws on a clock. rates: tokens and seconds of a round of each plan; plans that are not named take 3 seconds.

    noise: of the seconds of a whole trial, as a factor's standard deviation. cold: seconds of the first trial of all.
    """

    rates: Mapping[DraftPlan, tuple[float, float]]
    noise: float = 0.0
    cold: float = 0.0
    seed: int = 0
    drawn: list[tuple[DraftPlan, int, float]] = field(default_factory=list)  # plan, turn, tokens

    def run(self, plan: DraftPlan, bar: Trial | None, turn: int) -> Trial:
        tokens, seconds = self.rates.get(plan, (1.0, 3.0))
        key = [self.seed, len(self.drawn)]
        seconds *= float(np.exp(self.noise * np.random.default_rng(key).standard_normal()))
        late = 0.0 if self.drawn else self.cold
        trial, decided = Trial(plan, bar), 0.0
        while decided < TOKENS and not trial.hopeless:
            decided = min(decided + tokens, TOKENS)
            trial.add(decided, trial.seconds[-1] + seconds + late)
            late = 0.0
        self.drawn.append((plan, turn, decided))
        return trial


def eagle(length: int) -> DraftPlan:
    return DraftPlan("eagle", length)


def jacobi(length: int) -> DraftPlan:
    return DraftPlan("jacobi", length)


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({eagle(5): (2.7, 1.5)}, eagle(5)),
        ({eagle(5): (2.7, 2.8), eagle(3): (2.2, 1.4)}, eagle(3)),
        ({eagle(5): (2.7, 2.8), eagle(3): (2.2, 2.0), eagle(2): (1.9, 1.4), eagle(1): (1.5, 1.4)}, eagle(2)),
        ({eagle(5): (2.7, 1.5), jacobi(5): (2.5, 1.2)}, jacobi(5)),
        ({eagle(5): (2.7, 1.5), jacobi(5): (2.5, 1.6), jacobi(3): (2.4, 1.1)}, jacobi(3)),
        ({eagle(5): (2.7, 4.0), jacobi(5): (2.5, 2.6)}, PLAIN),
        ({eagle(5): (2.7, 2.67), jacobi(5): (2.5, 2.48)}, PLAIN),  # within the margin
        ({}, PLAIN),
    ],
    ids=lambda value: str(value) if isinstance(value, DraftPlan) else "",
)
def test_the_fastest_is_taken(rates: Mapping[DraftPlan, tuple[float, float]], best: DraftPlan) -> None:
    machine = Machine({PLAIN: (1.0, 1.0), **rates}, cold=100.0)
    found = choose(("eagle", "jacobi"), 5, machine.run)
    assert found.plan == best
    for plan, speed in found.speeds:
        tokens, seconds = machine.rates.get(plan, (1.0, 3.0))
        assert speed == pytest.approx(tokens / seconds, rel=0.05)


def test_what_is_far_behind_ends_early() -> None:
    machine = Machine({PLAIN: (1.0, 1.0), eagle(5): (2.0, 1.0)})
    choose(("eagle", "jacobi"), 5, machine.run)
    for plan, _, tokens in machine.drawn:
        if plan.drafter == "jacobi":
            assert ENOUGH <= tokens < ENOUGH + 2
        elif plan in (PLAIN, eagle(5)):
            assert tokens == TOKENS


def test_lengths_beyond_the_best_are_not_tried() -> None:
    machine = Machine({PLAIN: (1.0, 1.0), eagle(5): (2.0, 1.0), eagle(3): (1.8, 1.0), eagle(2): (1.5, 1.0)})
    found = choose(("eagle",), 5, machine.run)
    assert [plan for plan, _ in found.speeds] == [eagle(5), eagle(3)]


def test_the_pairs_that_decide_have_random_numbers_of_their_own() -> None:
    machine = Machine({PLAIN: (1.0, 1.0), eagle(5): (2.0, 1.0)})
    choose(("eagle",), 5, machine.run)
    last = machine.drawn[-2 * (PAIRS - 1) :]
    assert [(plan, turn) for plan, turn, _ in last] == [
        (plan, turn) for turn in range(1, PAIRS) for plan in (PLAIN, eagle(5))
    ]
    assert {turn for _, turn, _ in machine.drawn[: -2 * (PAIRS - 1)]} == {0}


def test_noise_seldom_makes_the_choice_lose() -> None:
    """40 machines whose drafts are 5% slower than plain decoding, timed with 5% noise.

    Drafts are taken on 9% of such machines; on 30% if one trial of each plan decided.
    """
    rates = {PLAIN: (1.0, 1.0), eagle(2): (2.0, 2.1), jacobi(2): (2.0, 2.1)}
    chosen = [choose(("eagle", "jacobi"), 2, Machine(rates, 0.05, seed=seed).run).plan for seed in range(40)]
    assert sum(plan != PLAIN for plan in chosen) <= 6


def test_a_batch_is_as_fast_as_its_slowest_image() -> None:
    """Trials are compared where both have been, between their points too."""
    slow, fast = Trial(PLAIN), Trial(eagle(2))
    for n in range(1, 11):
        slow.add(float(n), 2.0 * n)
    for n in range(1, 4):
        fast.add(2.0 * n, 2.5 * n)
    assert fast.over(slow) == pytest.approx(6 * 2.0 / (2.5 * 3))
    assert slow.at(4.5) == pytest.approx(9.0)
    assert slow.over(fast) == pytest.approx(1 / fast.over(slow))


def test_plans_are_read_back() -> None:
    for plan in (PLAIN, eagle(5), jacobi(1)):
        assert DraftPlan.of(plan.as_dict()) == plan
        assert DraftPlan.of(Choice(plan, ((eagle(5), 1.5),)).as_dict()) == plan


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"draft": "eagle", "draft_length": 0},
        {"draft": None, "draft_length": 3},
        {"draft": "other", "draft_length": 3},
        {"draft": "eagle", "draft_length": "3"},
        {"draft": "eagle", "draft_length": True},
        {"draft": ["eagle"], "draft_length": 3},
        {"draft": "eagle", "draft_length": 10**9},
    ],
)
def test_other_data_is_no_plan(data: dict[str, object]) -> None:
    with pytest.raises(CoolsdError, match="a plan of drafts"):
        DraftPlan.of(data)
