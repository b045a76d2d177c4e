"""Pacing by costs and acceptance: the law stays whatever is chosen, and what is chosen is worth it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from coolsd_rt.arrays import Bools, Floats64, Ints
from coolsd_rt.errors import CoolsdError
from coolsd_rt.law import Law, exact
from coolsd_rt.runtime import Sampling, decode, generate, rates
from coolsd_rt.runtime import pacing as module
from coolsd_rt.runtime.costs import RoundCosts
from coolsd_rt.runtime.pacing import AutoPacer, make_pacer
from tests.runtime.costs import costs_of
from tests.runtime.fakes import FakeSession, Tables, dims
from tests.runtime.planting import plant
from tests.runtime.tree import History, Leaf, Method, leaves, output_law, probes

VOCAB, TOKENS, LENGTH = 2, 5, 3


COSTS = {
    "cheap": costs_of((1.0, 1.02, 1.04, 1.06)),
    "steep": costs_of((1.0, 1.4, 1.9, 2.4)),
    "late": costs_of((1.0, 1.9, 1.95, 2.0)),
}


@dataclass(frozen=True)
class Told:
    """`tree.Pacing` by a pacer of the package: a new one is told all rounds before each question."""

    costs: RoundCosts
    kind: type[AutoPacer] = AutoPacer
    junk: float = 0.0  # in the place of Q that no choice may depend on

    def _after(self, history: History) -> AutoPacer:
        pacer = self.kind(self.costs, TOKENS)
        for past in history:
            pacer.before(np.array([past.confidence]), np.array([past.most]), np.array([True]))
            if past.made:
                pacer.after(self._padded(past.q_top, past.made), np.array([past.made]))
            pacer.learn(np.array([past.accepted]), np.array([past.counted]), np.array([True]))
        return pacer

    def _padded(self, q_top: tuple[float, ...], made: int) -> Floats64:
        return np.array([(*q_top, *[self.junk] * (made - len(q_top)))])

    def made(self, history: History, confidence: float, most: int) -> int:
        choice = self._after(history).before(np.array([confidence]), np.array([most]), np.array([True]))
        return int(choice.num_drafts[0])

    def counts(self, history: History, confidence: float, most: int, q_top: tuple[float, ...]) -> bool:
        pacer = self._after(history)
        made = pacer.before(np.array([confidence]), np.array([most]), np.array([True])).num_drafts
        return int(pacer.after(self._padded(q_top, int(made[0])), made)[0]) >= len(q_top)


@pytest.fixture(autouse=True)
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of six tokens ends before the usual number of trials, and must not be given up for one bad round."""
    for name, value in {"LOSS_LIMIT": 0.5, "RETRY_ROUNDS": 2, "COMPARED_ROUNDS": 50}.items():
        monkeypatch.setattr(module, name, value)
    for name, value in {"TRIALS": 1, "CLASS_WEIGHT": 1.0, "WEIGHT": 1.0}.items():
        monkeypatch.setattr(rates, name, value)


def world(omegas: tuple[float, ...], costs: RoundCosts, told: Told | None = None) -> tuple[Tables, list[Leaf]]:
    tables = Tables.random(VOCAB, TOKENS, seed=5, spread=1.5)
    return tables, leaves(tables.p, tables.q, Method(omegas, pacing=told or Told(costs)), TOKENS)


def differing(tables: Tables, found: list[Leaf], law: Law, costs: RoundCosts) -> int:
    """How many leaves the loop does not draw. Each is a batch of its own: a batch's images share their choices."""
    wrong = 0
    for leaf in found:
        for upper in (False, True):
            session = FakeSession(tables, dims(VOCAB, TOKENS), 1, paced=True)
            drawn = decode(session, law, Sampling(costs=costs), probes([leaf], TOKENS, LENGTH, upper))
            wrong += drawn.codes[0].tolist() != list(leaf.codes) or int(drawn.statistics.rounds[0]) != leaf.rounds
    return wrong


@pytest.mark.parametrize("name", list(COSTS))
@pytest.mark.parametrize("omegas", [(1.0, 1.0, 1.0), (0.4, 1.0, 0.8), (1.6, 1.2, 1.0)])
def test_every_leaf_is_drawn(omegas: tuple[float, ...], name: str) -> None:
    """The real loop over all of its draws, against a tree that asks the pacer no more than a choice may depend on."""
    tables, found = world(omegas, COSTS[name])
    assert differing(tables, found, Law(omegas), COSTS[name]) == 0
    assert sum(leaf.volume for leaf in found) == pytest.approx(1.0, abs=1e-12)
    if max(omegas) <= 1:
        assert exact.total_variation(output_law(found), exact.target_law(tables.p, TOKENS)) < 1e-12


@dataclass(frozen=True)
class Noted(Told):
    """`Told`, with every answer noted."""

    answers: list[tuple[int, int]] = field(default_factory=list)  # drafts that fit, drafts made
    judged: list[bool] = field(default_factory=list)

    def made(self, history: History, confidence: float, most: int) -> int:
        made = super().made(history, confidence, most)
        self.answers.append((most, made))
        return made

    def counts(self, history: History, confidence: float, most: int, q_top: tuple[float, ...]) -> bool:
        self.judged.append(super().counts(history, confidence, most, q_top))
        return self.judged[-1]


def test_the_worlds_have_choices_to_make() -> None:
    """Otherwise the enumeration would prove nothing about them: rounds without a draft, short ones, and cut ones."""
    answers: set[tuple[int, int]] = set()
    judged: set[bool] = set()
    for costs in COSTS.values():
        noted = Noted(costs)
        world((1.0,) * LENGTH, costs, noted)
        answers.update(noted.answers)
        judged.update(noted.judged)
    assert any(made == most > 1 for most, made in answers)
    assert any(made == 0 < most for most, made in answers)
    assert any(0 < made < most for most, made in answers)
    assert judged == {True, False}


class Peeks(AutoPacer):
    """Planted: whether any draft counts depends on the last Q of the window, which tells the drafts before it."""

    def before(self, confidence: Floats64, most: Ints, active: Bools) -> module.Choice:
        super().before(confidence, most, active)
        return module.Choice(0, most)

    def after(self, q_top: Floats64, num_drafts: Ints) -> Ints:
        super().after(q_top, num_drafts)
        return np.where(q_top[:, -1] < 0.8, 0, num_drafts) if q_top.shape[1] > 1 else num_drafts


def test_a_choice_that_looks_at_a_drafted_token_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = COSTS["cheap"]
    tables, found = world((1.0,) * LENGTH, costs, Told(costs, Peeks, junk=1.0))

    def peeking(sampling: Sampling, tokens: int) -> AutoPacer:
        assert sampling.costs is not None
        return Peeks(sampling.costs, tokens)

    plant(monkeypatch, make_pacer, peeking)
    assert differing(tables, found, Law((1.0,) * LENGTH), costs) > 0


def test_the_same_peek_moves_the_law() -> None:
    """It is a fault of the law and not of the test: images drawn with it are not distributed as P."""
    tables = Tables.random(VOCAB, TOKENS, seed=5, spread=1.5)
    images = 6000
    exactly = exact.target_law(tables.p, TOKENS)

    def distance(kind: type[AutoPacer]) -> float:
        counts: dict[tuple[int, ...], int] = {}
        session = FakeSession(tables, dims(VOCAB, TOKENS), images, paced=True)
        with pytest.MonkeyPatch.context() as patch:
            plant(patch, make_pacer, lambda sampling, tokens: _Alone(kind, COSTS["cheap"], images))
            drawn = generate(session, Law((1.0,) * LENGTH), Sampling(costs=COSTS["cheap"]), range(images))
        for codes in map(tuple, drawn.codes.tolist()):
            counts[codes] = counts.get(codes, 0) + 1
        return 0.5 * sum(abs(counts.get(codes, 0) / images - p) for codes, p in exactly.items())

    # 32 images, 6,000 draws: exact draws are 0.03 away at most on average, and the planted bug is above 0.1.
    assert distance(AutoPacer) < 0.05 < distance(Peeks)


class _Alone:
    """A pacer for each image of a batch, as if it were alone."""

    reads_p = reads_q = hopeful = True
    retired: frozenset[int] = frozenset()

    def __init__(self, kind: type[AutoPacer], costs: RoundCosts, images: int) -> None:
        self._each = [kind(costs, TOKENS) for _ in range(images)]

    def before(self, confidence: Floats64, most: Ints, active: Bools) -> module.Choice:
        one = np.array([True])
        counts = [
            int(pacer.before(confidence[m : m + 1], most[m : m + 1], one).num_drafts[0]) if active[m] else 0
            for m, pacer in enumerate(self._each)
        ]
        return module.Choice(0, np.array(counts))

    def after(self, q_top: Floats64, num_drafts: Ints) -> Ints:
        found = num_drafts.copy()
        for m in np.flatnonzero(num_drafts):
            found[m] = self._each[m].after(q_top[m : m + 1, : num_drafts[m]], num_drafts[m : m + 1])[0]
        return found

    def learn(self, accepted: Ints, num_drafts: Ints, active: Bools) -> None:
        for m in np.flatnonzero(active):
            self._each[m].learn(accepted[m : m + 1], num_drafts[m : m + 1], np.array([True]))


def test_what_follows_a_rejected_draft_is_not_learned_from() -> None:
    """Only decided tokens are: how many drafts counted after the rejection must not show in later choices."""

    def choices(counted: int) -> list[Any]:
        pacer, one, found = AutoPacer(COSTS["steep"], 40), np.array([True]), []
        for turn in range(8):
            made = pacer.before(np.array([0.9]), np.array([3]), one).num_drafts
            found.append(made.tolist())
            if made[0]:
                pacer.after(np.full((1, int(made[0])), 0.9), made)
            kept = turn % 2 if made[0] > 1 else 0
            pacer.learn(np.array([kept]), np.minimum(np.maximum(made, kept), max(counted, kept + 1)) * (made > 0), one)
        return found

    assert choices(1) == choices(2) == choices(3)


def test_the_same_request_has_the_same_choices() -> None:
    tables = Tables.random(3, 8, seed=1).as_float32()
    runs = []
    for _ in range(2):
        session = FakeSession(tables, dims(3, 8), 4, paced=True)
        runs.append(generate(session, Law((1.0,) * 3), Sampling(costs=costs_of((1.0, 1.3, 1.75, 1.9), 4)), range(4)))
    np.testing.assert_array_equal(runs[0].codes, runs[1].codes)
    np.testing.assert_array_equal(runs[0].statistics.rounds, runs[1].statistics.rounds)


@pytest.mark.parametrize(
    "broken",
    [
        {"verify": ((1.0, 1.1), (1.0, 1.1, 1.2))},
        {"verify": ((0.0, 1.1), (1.0, 1.1))},
        {"plain": (1.0,)},
        {"plain": (float("nan"), 1.0)},
        {"drafts": ()},
        {"drafts": (("eagle", ((0.0, -1.0), (0.0, 1.0))),)},
    ],
)
def test_broken_costs_are_refused(broken: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "images": 1,
        "plain": (1.0, 1.0),
        "verify": ((1.0, 1.1), (1.0, 1.1)),
        "drafts": (("eagle", ((0.0, 0.1), (0.0, 0.1))),),
    }
    assert RoundCosts.of(RoundCosts(**good).as_dict()) == RoundCosts(**good)
    with pytest.raises(CoolsdError, match=r"^round costs: expected"):
        RoundCosts(**{**good, **broken})


def test_without_hope_the_batch_is_plain_decoding() -> None:
    """Not even drafts that are all accepted would pay: no draft model is stepped, not for the prefix either."""
    tables = Tables.random(3, 8, seed=1).as_float32()
    costs = costs_of((1.0, 2.1, 3.2, 4.3), 2)
    session = FakeSession(tables, dims(3, 8), 2, paced=True)
    drawn = generate(session, Law((1.0,) * 3), Sampling(costs=costs), [1, 2])
    assert drawn.statistics.draft_tokens == 0
    assert set(session.calls) == {"target"}
