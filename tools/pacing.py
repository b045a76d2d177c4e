"""What pacing `auto` takes, beside every fixed choice: `python -m tools.pacing engines/emoji --lossless`.

For each number of images at once the plan is chosen as a first request would (in a folder of its own, so that the
record of this machine is neither read nor changed). Then plain decoding and every plan that could have been chosen draw
the same images in turns, each turn with other random numbers than the choice had. Ratios are medians of the ratios of
each turn. Two goals: what was taken is at least 0.97 of plain decoding, and at least 0.95 of the best plan.

`--rates 0.2,0.2,0.2` replaces the acceptance rule by fixed rates, for engines of random weights. Knows plans and turns.
Does not know how a plan is chosen.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click

from coolsd_rt import cores, limits
from coolsd_rt.cli.entry import enter, gathered, overwrite_option
from coolsd_rt.cli.numbers import Numbers, number, threads_option
from coolsd_rt.cli.paths import ENGINE, WRITES
from coolsd_rt.cli.terminal import note, say, show_table
from coolsd_rt.errors import UserError
from coolsd_rt.machine import machine
from coolsd_rt.spec import with_overrides
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Asked, Job, Settings
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.plan_book import PlanBook
from coolsd_rt.workflows.planning import Trials, candidates, plan_for
from coolsd_rt.workflows.plans import PLAIN, DraftPlan, lengths

LEAST_OF_PLAIN, LEAST_OF_BEST = 0.97, 0.95
_FIRST_TURN = 1000  # turns of the choice are far below


@dataclass(frozen=True)
class Measured:
    """One number of images. speeds: of each plan in each turn, as multiples of plain decoding's."""

    images: int
    taken: DraftPlan
    speeds: dict[DraftPlan, list[float]]

    def speed(self, plan: DraftPlan) -> float:
        """Median speed as a multiple of plain decoding's."""
        return median(self.speeds[plan]) if plan in self.speeds else 1.0

    @property
    def best(self) -> DraftPlan:
        """The fastest plan, plain decoding included."""
        return max([PLAIN, *self.speeds], key=self.speed)

    @property
    def holds(self) -> bool:
        """Whether both goals are met."""
        taken = self.speed(self.taken)
        return taken >= LEAST_OF_PLAIN and taken >= LEAST_OF_BEST * self.speed(self.best)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        plans = [{**p.as_dict(), "speed": self.speed(p), "turns": s} for p, s in self.speeds.items()]
        taken = {**self.taken.as_dict(), "speed": self.speed(self.taken)}
        best = {**self.best.as_dict(), "speed": self.speed(self.best)}
        return {"images": self.images, "taken": taken, "best": best, "holds": self.holds, "plans": plans}


def measure(opened: OpenedEngine, settings: Settings, images: int, turns: int, tokens: int) -> Measured:
    """Choose a plan for `images` images, and draw with every plan in turns. tokens: of an image that a turn draws."""
    engine, conditioner, texts = opened.engine, opened.conditioner, opened.default_prompts()

    def jobs_of(turn: int) -> list[Job]:
        asked = [Asked(i, texts[(turn * images + i) % len(texts)], 0) for i in range(images)]  # trials have own seeds
        return drawing.jobs_of(asked, conditioner)

    with fresh_record() as book:
        taken = plan_for(engine, jobs_of(0), conditioner, settings, book)
    note(f"{images} at once: takes {taken}")
    plans = [DraftPlan(d, n) for d in candidates(settings) for n in lengths(settings.law.length)]
    speeds: dict[DraftPlan, list[float]] = {plan: [] for plan in plans}
    trials = Trials(engine, jobs_of(0), conditioner, settings, images, seconds=0.0, tokens=tokens)
    trials.run(PLAIN, None, 0)
    for turn in range(turns):
        number = _FIRST_TURN + turn
        trials = Trials(engine, jobs_of(turn + 1), conditioner, settings, images, seconds=0.0, tokens=tokens)
        plain = trials.run(PLAIN, None, number)
        for plan in plans:
            speeds[plan].append(trials.run(plan, None, number).over(plain))
        note(f"{images} at once: turn {turn + 1} of {turns}")
    return Measured(images, taken, speeds)


@contextmanager
def fresh_record() -> Iterator[PlanBook]:
    """A record of plans that is empty, and gone afterwards."""
    before = os.environ.get("COOLSD_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COOLSD_CACHE"] = folder
        try:
            yield PlanBook("measured", {})
        finally:
            os.environ.pop("COOLSD_CACHE")
            if before is not None:
                os.environ["COOLSD_CACHE"] = before


def show(found: Sequence[Measured]) -> None:
    """Print one line for each number of images."""
    columns = ("images", "taken", "vs plain", "best", "vs plain", "holds")
    rows = [
        (
            str(one.images),
            str(one.taken),
            f"{one.speed(one.taken):.2f}x",
            str(one.best),
            f"{one.speed(one.best):.2f}x",
            "yes" if one.holds else "no",
        )
        for one in found
    ]
    show_table(columns, rows)


@dataclass(frozen=True)
class Options:
    """What was typed; see the command's help."""

    engine: Path
    images: tuple[int, ...]
    turns: int
    tokens: int | None
    lossless: bool
    rates: tuple[float, ...] | None
    json_file: Path | None
    threads: int | None
    overwrite: bool

    def law(self) -> dict[str, Any]:
        """The overrides of the spec's law."""
        if self.lossless:
            return {"schedule.kind": "none", "acceptance.rule": "ratio", "resampler.kind": "optimal"}
        if self.rates:
            rule = {"acceptance.rule": "synthetic", "acceptance.rates": self.rates, "draft.length": len(self.rates)}
            return {"schedule.kind": "none", "resampler.kind": "target", **rule}
        return {}


@click.command()
@click.argument("engine", type=ENGINE)
@click.option(
    "--images",
    type=number(limits.MAX_BATCH),
    multiple=True,
    default=(1, 2, 4),
    show_default=True,
    help="Images at once; repeatable.",
)
@click.option("--turns", type=number(limits.RUNS), default=31, show_default=True, help="Turns of every plan.")
@click.option("--tokens", type=number(limits.TOKENS), help="Tokens of an image that a turn draws; default: all.")
@click.option("--lossless", is_flag=True, help="Lossless instead of the spec's law: Jacobi drafts may be taken too.")
@click.option("--rates", type=Numbers(limits.PROBABILITY), metavar="A,B,…", help="Accept drafts at these fixed rates.")
@click.option("--json", "json_file", type=WRITES, help="Write all turns to this file.")
@threads_option()
@overwrite_option
@gathered(Options)
def command(options: Options) -> None:
    """Measure pacing `auto` beside every fixed choice.

    \b
    Example:
      python -m tools.pacing engines/emoji --images 1 --images 4 --turns 31 --lossless
    """
    if options.json_file:
        check_output(options.json_file, "--json", overwrite=options.overwrite)
    if options.lossless and options.rates:
        raise UserError("the law", expected="--lossless or --rates", found="both", fix="drop one")
    threads = cores.threads_for(options.threads)
    opened = OpenedEngine.at(options.engine, threads=threads)
    most, largest = opened.spec.engine.max_batch, max(options.images)
    if largest > most:
        raise UserError("--images", expected=f"at most the engine's {most} (engine.max_batch)", found=str(largest))
    settings = opened.settings(with_overrides(opened.spec, options.law()))
    whole = opened.description.dims.tokens
    tokens = min(options.tokens or whole, whole)
    found = [measure(opened, settings, images, options.turns, tokens) for images in options.images]
    show(found)
    if options.json_file:
        sizes = [one.as_dict() for one in found]
        document = {"machine": machine(threads), "turns": options.turns, "tokens": tokens, "sizes": sizes}
        write_output(options.json_file, (json.dumps(document, indent=1) + "\n").encode(), overwrite=options.overwrite)
        say(f"written to {options.json_file}")


if __name__ == "__main__":
    enter(command)
