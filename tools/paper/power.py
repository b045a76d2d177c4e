"""A sweep's laws compared on the same images: `python -m tools.paper.power out/power`.

With --plan N it says instead, from a pilot sweep, which true differences N images a law find. Run that before drawing.

Knows the options and the files that are written. Does not know statistics (`power_report`, `power_plan`), or how a
sweep is stored (`sweep_images`). Needs the extras cpu and measure.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from coolsd_rt import limits
from coolsd_rt.cli.entry import enter, gathered, overwrite_option
from coolsd_rt.cli.numbers import number
from coolsd_rt.cli.options import moved_spec_option
from coolsd_rt.cli.paths import ENGINE, FOLDER, READS, WRITES_IN
from coolsd_rt.cli.terminal import note, print_json, say
from coolsd_rt.errors import UserError
from coolsd_rt.ranges import whole
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows.opened import OpenedEngine
from tools.paper.paired import Floats
from tools.paper.power_plan import Plan, plan_of
from tools.paper.power_report import page_of, plan_page, report_of
from tools.paper.sweep_images import Measured, SweepFolder, base_of, read_points

DRAWS = whole(100, 1_000_000)
COMPARISONS = whole(1, 10_000)
REPORT, PLAN = "power", "plan"
EVERY = 200  # bootstrap samples between two lines of progress


@dataclass(frozen=True)
class PowerOptions:
    """The options of the command. base: None is the point of the series `lossless`."""

    folder: Path
    engine: Path
    references: Path | None
    base: str | None
    plan: int | None
    comparisons: int | None
    draws: int
    finished_only: bool
    network: Path | None
    spec_file: Path | None

    def network_file(self) -> Path:
        """Return the file of the feature network: the one that is named, or the engine's image tokenizer."""
        if self.network is not None:
            return self.network
        return OpenedEngine.at(self.engine, spec_file=self.spec_file).find_spec().files["image.weights"]


def answer(options: PowerOptions) -> dict[str, Any]:
    """Return the report, or the plan, as JSON data. Raises UserError: no finished sweep, other files than its own."""
    sweep = SweepFolder.at(options.folder)
    indices = sweep.finished(options.finished_only)
    measured = Measured.of(sweep, options.references, options.network_file)
    laws = read_points(sweep, measured, indices, lambda name: note(f"reading {name}"))
    base = base_of(laws, options.base)
    if len(laws) < 2:
        raise UserError(str(options.folder), expected="two finished points or more", found="one")
    real = _references(sweep, measured)
    on_sample = _Progress(options.draws)
    if options.plan is not None:
        plan = Plan(options.plan, options.comparisons or len(laws) - 1)
        return {"engine": sweep.head.engine, **plan_of(laws, base, plan, real, options.draws, on_sample)}
    lacking = [name for i, name in enumerate(sweep.names) if i not in indices]
    found = report_of(laws, base, real, options.draws, on_sample)
    return {"engine": sweep.head.engine, "seed": sweep.head.seed, "lacking": lacking, **found}


def _references(sweep: SweepFolder, measured: Measured) -> Floats | None:
    if measured.network is None:
        note("no Fréchet distance: the sweep has no references of plain decoding")
        return None
    note("reading references")
    return measured.features(sweep.plain_images())


class _Progress:
    """Says how many bootstrap samples of the Fréchet distances are done."""

    def __init__(self, draws: int) -> None:
        self.draws, self.done = draws, 0

    def __call__(self) -> None:
        self.done += 1
        if self.done % EVERY == 0 or self.done == self.draws:
            note(f"Fréchet distances of {self.done} of {self.draws} bootstrap samples")


def known(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, dict):
        return {key: known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [known(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--engine", type=ENGINE, default=Path("engines/emoji"), show_default=True,
              help="Engine of the sweep; its image tokenizer makes the features.")  # fmt: skip
@click.option("--references", type=FOLDER, help="Folder of the retrieval's references, as in the sweep's file.")
@click.option("--base", help="Name of the point that the others are compared with. Default: the series `lossless`.")
@click.option("--plan", type=number(limits.IMAGES), help="Plan a sweep of this many images a law; FOLDER is a pilot.")
@click.option("--comparisons", type=number(COMPARISONS),
              help="Laws that the planned sweep compares with its base. Default: as many as the pilot.")  # fmt: skip
@click.option("--draws", type=number(DRAWS), default=2000, show_default=True, help="Number of bootstrap samples.")
@click.option("--finished-only", is_flag=True, help="Report the finished points of an unfinished sweep.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--out", type=WRITES_IN, help="Folder to write text and JSON into, and the plots of a report.")
@click.option("--network", type=READS, help="Feature network of the sweep, if not the engine's image tokenizer.")
@moved_spec_option
@overwrite_option
@gathered(PowerOptions)
def command(options: PowerOptions, as_json: bool, out: Path | None, overwrite: bool) -> None:
    """Compare every point of the sweep in FOLDER with lossless decoding, on the same prompts and seeds.

    \b
    Examples:
      python -m tools.paper.power out/power --references out/emoji-references --out out/compared
      python -m tools.paper.power out/pilot --references out/emoji-references --plan 2048 --comparisons 8
    """
    name = REPORT if options.plan is None else PLAN
    kinds = ("json", "txt") if options.plan is not None else ("json", "txt", "png", "svg")
    if out is not None:
        for kind in kinds:
            check_output(out / f"{name}.{kind}", "--out", overwrite=overwrite)
    found = known(answer(options))
    lines = list(page_of(found) if options.plan is None else plan_page(found))
    if as_json:
        print_json(found)
    else:
        for line in lines:
            say(line)
    if out is not None:
        files = {"json": (json.dumps(found, indent=1) + "\n").encode(), "txt": ("\n".join(lines) + "\n").encode()}
        if options.plan is None:
            from tools.paper.power_plot import plots

            files |= plots(found)
        for kind, data in files.items():
            write_output(out / f"{name}.{kind}", data, overwrite=overwrite)


def main() -> None:
    """Entry point."""
    enter(command)


if __name__ == "__main__":
    main()
