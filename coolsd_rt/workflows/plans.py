"""Chooses how a batch drafts, by trying it: pacing `auto`.

Whether drafts pay, whose, and how many of them, depends on the machine, the engine, the law and the number of images
at once: four images that draft can take twice as long as plain decoding. So the batch is drawn with several plans, in
part if it takes long. Each is tried once; the fastest four then race in turns with plain decoding, until
one of them is ahead by more than chance, and the fastest is taken; plain decoding unless another is clearly faster.
How many tokens of a draft are accepted varies by 6% from one image of 256 tokens to the next: one trial of each, or
three, took plans that lost a fifth of the speed.

A plan holds for all rounds of a request. It is chosen before the request is drawn, so that no draft, and no token of
the image, has a say in it: the law of the images is the one that was asked for. What each plan costs and how often its
drafts are accepted is in the time that it takes; nothing is modelled.

Knows plans and times. Does not know engines, or where a choice is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.errors import CoolsdError
from coolsd_rt.limits import DRAFT_LENGTH
from coolsd_rt.runtime.drafter_names import DRAFTERS, DrafterName

TURNS = 12  # of the race, at most
LEAST_TURNS = 4  # before the race can be decided
BEHIND = 0.93  # share of the leader's speed below which a plan leaves after two turns
RACE_SECONDS = 30.0  # after which no further turn begins, but for the second
RUNNERS = 4  # plans in the race, beside plain decoding
NEAR = 0.9  # share of plain decoding's speed at its only trial below which a plan is not in the race
SURE = 2.0  # standard errors between two plans that end the race
LEAST_SPREAD = 0.02  # of a trial's logarithm, so that turns which agree by chance do not decide
PAYS = 1.5  # standard errors by which the winner has to beat plain decoding
MARGIN = 1.02  # a plan has to be this much faster than plain decoding
HOPELESS = 0.85  # share of the best plan's speed below which a trial ends early ...
ENOUGH = 32  # ... once the slowest image has this many tokens


@dataclass(frozen=True)
class DraftPlan:
    """How all rounds of a batch draft: `length` drafts of `drafter`. Length 0 is plain decoding, without a drafter."""

    drafter: DrafterName | None
    length: int

    def as_dict(self) -> dict[str, Any]:
        """JSON data; `of` takes it back."""
        return {"draft": self.drafter, "draft_length": self.length}

    @staticmethod
    def of(data: Mapping[str, Any]) -> DraftPlan:
        """Read JSON data. Raises CoolsdError: not what `as_dict` gives."""
        drafter, length = data.get("draft"), data.get("draft_length")
        if drafter is None and length == 0:
            return PLAIN
        if drafter not in DRAFTERS or type(length) is not int or not 1 <= length <= DRAFT_LENGTH.high:
            raise CoolsdError("a plan of drafts", expected="a drafter and its number of drafts", found=str(data))
        return DraftPlan(drafter, length)

    def __str__(self) -> str:
        return f"{self.drafter}, {self.length} draft{'s' if self.length > 1 else ''}" if self.length else "plain"


PLAIN = DraftPlan(None, 0)


@dataclass
class Trial:
    """A batch that is being drawn with a plan: how far its slowest image is, and when. The batch ends with that image.

    bar: the best trial so far.
    """

    plan: DraftPlan
    bar: Trial | None = None
    decided: list[float] = field(default_factory=lambda: [0.0])
    seconds: list[float] = field(default_factory=lambda: [0.0])

    def add(self, decided: float, seconds: float) -> None:
        """Add a point: tokens of the slowest image, and seconds since the start. Points come in order of time."""
        self.decided.append(decided)
        self.seconds.append(seconds)

    @property
    def hopeless(self) -> bool:
        """Whether the trial is too far behind the best one to go on."""
        return self.bar is not None and self.decided[-1] >= ENOUGH and self.over(self.bar) < HOPELESS

    def at(self, decided: float) -> float:
        """Seconds until the slowest image had so many tokens."""
        return float(np.interp(decided, self.decided, self.seconds))

    def over(self, other: Trial) -> float:
        """Speed as a multiple of the other trial's, over the tokens that both have drawn."""
        common = min(self.decided[-1], other.decided[-1])
        mine = self.at(common)
        return other.at(common) / mine if mine > 0 else 1.0


@dataclass(frozen=True)
class Choice:
    """The plan that was taken. speeds: of each plan that was tried, as a multiple of plain decoding's speed."""

    plan: DraftPlan
    speeds: tuple[tuple[DraftPlan, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON data of the plan; the speeds are there for people to read."""
        tried = [{**plan.as_dict(), "speed": round(speed, 3)} for plan, speed in self.speeds]
        return {**self.plan.as_dict(), "tried": tried}


Run = Callable[[DraftPlan, Trial | None, int], Trial]
"""Draws the batch with a plan, to its end or until the trial is hopeless. Given the best trial so far, and a number:
equal numbers are equal random numbers."""


def choose(drafters: Sequence[DrafterName], length: int, run: Run) -> Choice:
    """Try the plans of each drafter with up to `length` drafts. Raises as `run` does."""
    run(PLAIN, None, 0)  # what happens once, such as the first growth of caches, is no plan's
    race = _Race(run)
    speeds = _sweep(drafters, length, run)
    left = [plan for plan, speed in speeds.items() if speed >= NEAR]  # of plain's: one lucky trial keeps nobody out
    race.run_all(sorted(left, key=lambda plan: -speeds[plan])[:RUNNERS])
    speeds.update({plan: race.speed(plan) for plan in race.logs})
    return Choice(race.winner(), tuple(speeds.items()))


def _sweep(drafters: Sequence[DrafterName], length: int, run: Run) -> dict[DraftPlan, float]:
    """Try each plan once. Returns speeds as multiples of plain decoding's."""
    plain = best = run(PLAIN, None, 0)
    speeds: dict[DraftPlan, float] = {}
    for drafter in drafters:
        least = 0.0
        for count in lengths(length):
            trial = run(DraftPlan(drafter, count), best, 0)
            speed = speeds[trial.plan] = trial.over(plain)
            if trial.over(best) > 1:
                best = trial
            if speed < NEAR * least:
                break  # fewer drafts are slower already
            least = max(least, speed)
    return speeds


@dataclass
class _Race:
    """Turns of plain decoding and the plans that are left, each turn with random numbers of its own.

    logs: the logarithm of the speed over plain decoding's, one for each turn that the plan ran. Who is left has run
    all turns.
    """

    run: Run
    logs: dict[DraftPlan, list[float]] = field(default_factory=dict)
    seconds: float = 0.0

    def run_all(self, runners: Sequence[DraftPlan]) -> None:
        """Run turns until one plan is clearly ahead, or time is up."""
        left = list(runners)
        self.logs = {plan: [] for plan in left}
        for turn in range(1, TURNS + 1):
            if not left or (turn > 2 and self.seconds > RACE_SECONDS):
                break
            plain = self._trial(PLAIN, turn)
            for plan in left:
                self.logs[plan].append(math.log(self._trial(plan, turn).over(plain)))
            if turn >= 2:
                fastest = max(self.speed(plan) for plan in left)
                left = [plan for plan in left if self.speed(plan) >= BEHIND * fastest]
            if turn >= LEAST_TURNS:
                left = self._still(left)

    def _trial(self, plan: DraftPlan, turn: int) -> Trial:
        trial = self.run(plan, None, turn)
        self.seconds += trial.seconds[-1]
        return trial

    def _still(self, left: Sequence[DraftPlan]) -> list[DraftPlan]:
        """Return the plans that may still be the fastest; none if it is known which one is."""
        leader = max(left, key=lambda plan: median(self.logs[plan]))
        lead = np.array(self.logs[leader])
        centre, error = _centre(lead)
        if centre + SURE * error < math.log(MARGIN):
            return []  # plain decoding
        near = [plan for plan in left if plan != leader and _near(lead - np.array(self.logs[plan]))]
        settled = not near and centre - SURE * error > math.log(MARGIN)
        return [] if settled else [leader, *near]

    def speed(self, plan: DraftPlan) -> float:
        """Speed as a multiple of plain decoding's."""
        return math.exp(median(self.logs[plan]))

    def winner(self) -> DraftPlan:
        """The plan to take: plain decoding unless the fastest that ran to the end beats it by margin and errors."""
        most = max((len(logs) for logs in self.logs.values()), default=0)
        left = [plan for plan, logs in self.logs.items() if len(logs) == most]
        if not left:
            return PLAIN
        leader = max(left, key=self.speed)
        centre, error = _centre(np.array(self.logs[leader]))
        return leader if centre >= math.log(MARGIN) and centre > PAYS * error else PLAIN


def _near(ahead: NDArray[np.float64]) -> bool:
    """Whether a plan may still be faster than one that was `ahead` of it by these logarithms."""
    centre, error = _centre(ahead)
    return centre < SURE * error


def _centre(logs: NDArray[np.float64]) -> tuple[float, float]:
    """Return the median and its standard error. A burst of other work in one turn hardly moves either."""
    centre = float(np.median(logs))
    spread = 1.4826 * float(np.median(np.abs(logs - centre)))
    return centre, 1.2533 * max(spread, LEAST_SPREAD) / math.sqrt(len(logs))


def lengths(length: int) -> list[int]:
    """Return the numbers of drafts to try, the most first: each about 0.6 of the one before."""
    found = [length]
    while found[-1] > 1:
        found.append(max(1, min(found[-1] - 1, round(0.6 * found[-1]))))
    return found
