"""Chooses how a batch drafts, by trying it: pacing `auto`.

Whether drafts pay, whose, and how many of them, depends on the machine, the engine, the law and the number of images
at once: four images that draft can take twice as long as plain decoding. So the batch is drawn with several plans, in
part if it takes long, and the fastest is taken; plain decoding unless another is clearly faster.

A plan holds for all rounds of a request. It is chosen before the request is drawn, so that no draft, and no token of
the image, has a say in it: the law of the images is the one that was asked for. What each plan costs and how often its
drafts are accepted is in the time that it takes; nothing is modelled.

Knows plans and times. Does not know engines, or where a choice is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from coolsd_rt.errors import CoolsdError
from coolsd_rt.limits import DRAFT_LENGTH
from coolsd_rt.runtime.drafter_names import DRAFTERS, DrafterName

PAIRS = 3  # turns of plain decoding and the best plan that decide between the two
MARGIN = 1.02  # a plan has to be this much faster than plain decoding
HOPELESS = 0.85  # share of the best plan's speed below which a trial ends early ...
ENOUGH = 64  # ... once the slowest image has this many tokens


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
    plain = best = run(PLAIN, None, 0)
    speeds: list[tuple[DraftPlan, float]] = []
    for drafter in drafters:
        least = 0.0
        for count in _lengths(length):
            trial = run(DraftPlan(drafter, count), best, 0)
            speed = trial.over(plain)
            speeds.append((trial.plan, speed))
            if trial.over(best) > 1:
                best = trial
            if speed < least:
                break  # fewer drafts are slower already
            least = speed
    if best is plain:
        return Choice(PLAIN, tuple(speeds))
    ratios = [best.over(plain)]
    while len(ratios) < PAIRS:
        turn = len(ratios)
        again = run(PLAIN, None, turn)
        ratios.append(run(best.plan, None, turn).over(again))
    pays = median(ratios) >= MARGIN
    speeds = [(plan, median(ratios) if plan == best.plan else speed) for plan, speed in speeds]
    return Choice(best.plan if pays else PLAIN, tuple(speeds))


def _lengths(length: int) -> list[int]:
    """Numbers of drafts to try, the most first: each about 0.6 of the one before."""
    found = [length]
    while found[-1] > 1:
        found.append(max(1, min(found[-1] - 1, round(0.6 * found[-1]))))
    return found
