"""Time several variants that draw the same images, side by side in one run.

Knows engines, settings and a clock. Does not know which backend an engine runs on, files, or how tables look.

The variants take turns (A B C A B C ...), so that a machine that gets slower or warmer affects all of them; every
variant draws the same prompts with the same seeds; figures are medians over the turns. The time of an image runs from
its words to its tokens: condition, prefill and rounds, without image decoding and files, which are the same for all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.runtime.self_decoding import Loop, WholeEngine
from coolsd_rt.runtime.statistics import LoopTaken, Statistics
from coolsd_rt.workflows import drawing, totals
from coolsd_rt.workflows.drawing import Job, Settings


@dataclass(frozen=True)
class Variant:
    """One variant of decoding. `group` names the engine that steps ("eager", "fp32", "int8"), `name` how it decodes."""

    group: str
    name: str
    engine: Engine
    settings: Settings


@dataclass
class Timed:
    """A variant and its turns; every list has one entry per turn."""

    variant: Variant
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # tokens a second
    # Share of a turn spent outside the engine: law and Python. None: the device loop does not measure it.
    outside: list[float | None] = field(default_factory=list)
    parts: list[Statistics] = field(default_factory=list)
    loops: list[LoopTaken] = field(default_factory=list)
    graph_fallback_reason: str = ""  # of the last turn, as `Generation` has it

    @property
    def rate(self) -> float:
        """Median tokens per second."""
        return statistics.median(self.rates)

    @property
    def loop(self) -> LoopTaken | None:
        """The loop that all turns ran on."""
        return totals.one_loop(self.loops)

    @property
    def outside_engine(self) -> float | None:
        """Median share of a turn spent outside the engine; None if it is unknown."""
        known = [share for share in self.outside if share is not None]
        return statistics.median(known) if known else None

    def round_seconds(self, drafts: int) -> float | None:
        """Return the median seconds of rounds whose longest window had `drafts` drafts; None if there were none."""
        found = self.statistics.round_seconds.get(drafts)
        return statistics.median(found) if found else None

    @property
    def statistics(self) -> Statistics:
        """Statistics over all turns."""
        return totals.total(self.parts, self.variant.settings.law.length)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        total = self.statistics
        return {
            "group": self.variant.group,
            "name": self.variant.name,
            "tokens_per_second": {"median": self.rate, "min": min(self.rates), "max": max(self.rates)},
            "seconds": list(self.seconds),
            "mean_acceptance_length": total.mean_acceptance_length,
            "acceptance_by_position": total.acceptance_by_position,
            "loop": self.loop,
            "outside_engine": self.outside_engine,
            "seconds_by_phase": total.seconds_by_phase(self.loop),
        }


def take_turns(
    variants: Sequence[Variant],
    turns: Sequence[Sequence[Job]],
    conditioner: Conditioner,
    on_turn: Callable[[Variant], None] = lambda variant: None,
    clock: Callable[[], float] = time.perf_counter,
    between: Callable[[], None] = lambda: None,
    loop: Loop = "auto",
) -> list[Timed]:
    """Draw every batch of `turns` with every variant, in turns, after one untimed warm-up of each variant.

    on_turn: called after each batch, the warm-up included.
    between: called after each turn of all variants, for other measurements at the same time.
    loop: which loop is timed; auto is the one that `generate` takes.
    """
    timed = [Timed(variant) for variant in variants]
    for engine in {id(variant.engine): variant.engine for variant in variants}.values():
        if isinstance(engine, WholeEngine):  # so that no turn repeats work that `generate` does once
            engine.expect(sum(variant.engine is engine for variant in variants))
    for variant in variants:
        drawing.draw(variant.engine, turns[0], conditioner, variant.settings, loop=loop)
        on_turn(variant)
    for jobs in turns:
        for entry in timed:
            _turn(entry, jobs, conditioner, clock, loop)
            on_turn(entry.variant)
        between()
    return timed


def _turn(entry: Timed, jobs: Sequence[Job], conditioner: Conditioner, clock: Callable[[], float], loop: Loop) -> None:
    variant = entry.variant
    began = clock()
    generation = drawing.draw(variant.engine, jobs, conditioner, variant.settings, loop=loop)
    seconds = clock() - began
    phases = generation.statistics.seconds
    entry.seconds.append(seconds)
    bounds, tokens = variant.settings.bounds, variant.engine.dims.tokens
    entry.rates.append(len(jobs) * (tokens if bounds is None or bounds.limit is None else bounds.limit) / seconds)
    known = generation.loop == "host"
    entry.outside.append((phases["verify"] + phases["other"]) / sum(phases.values()) if known else None)
    entry.parts.append(generation.statistics)
    entry.loops.append(generation.loop)
    entry.graph_fallback_reason = generation.graph_fallback_reason
