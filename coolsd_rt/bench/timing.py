"""Several ways to draw the same pictures, timed side by side in one run.

Knows engines, settings and a clock. Does not know which backend an engine is, files, or how a table looks.

The ways take turns (A B C A B C ...), so that a machine that gets slower or warmer does so for all of them; every way
draws the same prompts with the same seeds; figures are medians over the turns. A picture's time runs from its words to
its tokens: condition, prefill and rounds, without painting and files, which are the same for all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.runtime.state import RoundRecord, State
from coolsd_rt.runtime.statistics import Statistics
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job, Settings


@dataclass(frozen=True)
class Way:
    """One row of the table. `group` is what steps ("eager", "fp32", "int8"), `name` how it decodes."""

    group: str
    name: str
    engine: Engine
    settings: Settings


@dataclass
class Rounds:
    """An `on_round` hook: what the rounds of a turn proposed, and how long each took."""

    clock: Callable[[], float] = time.perf_counter
    drafts: int = 0  # rounds of a picture that proposed anything
    draft_tokens: int = 0  # tokens proposed
    seconds: dict[int, list[float]] = field(default_factory=dict)  # wall, by the longest window of the batch in drafts
    _last: float | None = None

    def __call__(self, state: State, record: RoundRecord) -> None:
        """After a commit. The first round has no time of its own: the prefill stands before it."""
        now = self.clock()
        valid = record.valid[record.active]
        self.drafts += int((valid > 0).sum())
        self.draft_tokens += int(valid.sum())
        if self._last is not None:
            self.seconds.setdefault(int(valid.max()), []).append(now - self._last)
        self._last = self.clock()


@dataclass
class Timed:
    """A way and its turns; one entry a turn in every list."""

    way: Way
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # tokens a second
    outside: list[float] = field(default_factory=list)  # share of a turn spent outside the engine: law and Python
    parts: list[Statistics] = field(default_factory=list)
    rounds: list[Rounds] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median tokens a second."""
        return statistics.median(self.rates)

    @property
    def statistics(self) -> Statistics:
        return drawing.total(self.parts, self.way.settings.law.length)

    def as_dict(self) -> dict[str, Any]:
        total = self.statistics
        return {
            "group": self.way.group,
            "name": self.way.name,
            "tokens_per_second": {"median": self.rate, "min": min(self.rates), "max": max(self.rates)},
            "seconds": list(self.seconds),
            "mean_acceptance_length": total.mean_acceptance_length,
            "acceptance_by_position": total.acceptance_by_position,
            "outside_engine": statistics.median(self.outside),
            "seconds_by_phase": dict(total.seconds),
        }


def take_turns(
    ways: Sequence[Way],
    turns: Sequence[Sequence[Job]],
    conditioner: Conditioner,
    on_turn: Callable[[Way], None] = lambda way: None,
    clock: Callable[[], float] = time.perf_counter,
    between: Callable[[], None] = lambda: None,
) -> list[Timed]:
    """Draw every batch of `turns` in every way, in turns, after one warm-up of each way that does not count.

    between: called after each turn of all ways, for what else has to be measured at the same times.
    """
    timed = [Timed(way) for way in ways]
    for way in ways:
        drawing.draw(way.engine, turns[0], conditioner, way.settings)
        on_turn(way)
    for jobs in turns:
        for entry in timed:
            _turn(entry, jobs, conditioner, clock)
            on_turn(entry.way)
        between()
    return timed


def _turn(entry: Timed, jobs: Sequence[Job], conditioner: Conditioner, clock: Callable[[], float]) -> None:
    way, rounds = entry.way, Rounds()
    began = clock()
    generation = drawing.draw(way.engine, jobs, conditioner, way.settings, on_round=rounds)
    seconds = clock() - began
    phases = generation.statistics.seconds
    entry.seconds.append(seconds)
    entry.rates.append(len(jobs) * way.engine.dims.tokens / seconds)
    entry.outside.append((phases["law"] + phases["other"]) / sum(phases.values()))
    entry.parts.append(generation.statistics)
    entry.rounds.append(rounds)
