"""The benchmark of `make demo`: `python -m tools.demo.benchmark engines/emoji`.

    1. Find the spec of the engine; build the fp32 and the int8 engine of it, unless they are there.
    2. Time eager PyTorch and each engine, plain and speculating, side by side (`timing`).
    3. Measure the memory of `coolsd-rt generate` on each engine, in a process of its own (`memory`).
    4. Print the table and the goals (`report`); write them as JSON and Markdown if asked.

Needs the extras cpu and build.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from coolsd_rt import cores, limits
from coolsd_rt.bench.timing import Variant, take_turns
from coolsd_rt.cli.entry import enter, gathered, overwrite_option
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.options import moved_spec_option, sample_prompts_option
from coolsd_rt.cli.paths import ENGINE, WRITES
from coolsd_rt.cli.terminal import say, show_table
from coolsd_rt.cli.terminal.progress import Work, progress
from coolsd_rt.errors import UserError
from coolsd_rt.machine import machine
from coolsd_rt.prompts import Conditioner
from coolsd_rt.spec import LoadedSpec, Spec, with_jacobi, with_overrides
from coolsd_rt.store import EngineFolder
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.build.run import build, plan, with_precision
from coolsd_rt.workflows.opened import OpenedEngine
from tools.demo.memory import peak_memory
from tools.demo.report import (
    COLUMNS,
    EAGER,
    JACOBI,
    JACOBI_LOSSLESS,
    LOSSLESS,
    PLAIN,
    RELAXED,
    STRONGER,
    Table,
    markdown,
)

PRECISIONS = ("fp32", "int8")
GOAL_COLUMNS = ("figure", "goal", "found", "")


def both_engines(folder: EngineFolder, loaded: LoadedSpec) -> dict[str, EngineFolder]:
    """The engines of a spec in every precision, built where they are missing or stale.

    The engine's own precision comes last, since a build points `current` at itself: `current` keeps its precision.
    """
    own = opening.spec_of(folder).engine.precision
    out = folder.folder.parent.parent
    found = {}
    for precision in sorted(PRECISIONS, key=lambda p: p == own):
        found[precision] = build(plan(with_precision(loaded, precision), out)).engine
    return {p: found[p] for p in PRECISIONS}


def laws(spec: Spec) -> dict[str, Spec]:
    """The speculating rows: the spec's schedule at each delta, or the paper's if the spec's has no delta; and as many
    drafts without a draft model."""
    spec = with_overrides(spec, {"acceptance.rule": "ratio"})
    kind = spec.schedule.kind if hasattr(spec.schedule, "delta") else "exponential"
    lossless = with_overrides(spec, {"schedule.kind": "none"})
    relaxed = with_overrides(spec, {"schedule.kind": kind, "schedule.delta": 1.1})
    return {
        LOSSLESS: lossless,
        RELAXED: relaxed,
        STRONGER: with_overrides(spec, {"schedule.kind": kind, "schedule.delta": 2.0}),
        JACOBI_LOSSLESS: with_jacobi(lossless, spec.draft.length),
        JACOBI: with_jacobi(relaxed, spec.draft.length),
    }


def all_variants(
    loaded: LoadedSpec, engines: Mapping[str, EngineFolder], threads: int
) -> tuple[list[Variant], Conditioner]:
    """Every row of the table, with its engine loaded, and what reads the prompts."""
    opened = {precision: OpenedEngine(folder, threads=threads) for precision, folder in engines.items()}
    first = next(iter(opened.values()))
    reference = opening.open_reference(loaded, threads)
    variants = [Variant(EAGER, PLAIN, reference, first.settings(loaded.spec, plain=True))]
    for precision, one in opened.items():
        variants.append(Variant(precision, PLAIN, one.engine, one.settings(loaded.spec, plain=True)))
        variants += [
            Variant(precision, name, one.engine, one.settings(spec)) for name, spec in laws(loaded.spec).items()
        ]
    return variants, first.conditioner


def memory_of(folder: EngineFolder, prompt: str, threads: int) -> int:
    """Peak bytes of a `coolsd-rt generate` of one full batch, in a process of its own."""
    batch = str(folder.manifest.spec["engine"]["max_batch"])
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "coolsd_rt.cli", "generate", str(folder.folder), "-p", prompt, "-n", batch]
        return peak_memory([*command, "--out", out, "--threads", str(threads), "--json"])


def measure(
    engine: Path, *, runs: int, batch: int, prompts: Sequence[str], threads: int, spec_file: Path | None, work: Work
) -> Table:
    """The whole benchmark. Raises what builds and engines raise."""
    if runs < 1 or batch < 1:
        raise UserError("runs and images at once", expected="1 or more", found=f"{runs} and {batch}")
    opened = OpenedEngine.at(engine, spec_file=spec_file)
    folder, loaded = opened.folder, opened.find_spec()
    work.start("building what is missing")
    engines = both_engines(folder, loaded)
    variants, conditioner = all_variants(loaded, engines, threads)
    texts = list(prompts) or opening.default_prompts(loaded, conditioner)
    jobs = drawing.spread_jobs(texts, runs * batch, 0, conditioner)
    work.start("benchmark", len(variants) * (runs + 1), f"runs of {len(variants)} variants")

    def on_turn(variant: Variant) -> None:
        work.advance(f"{variant.group}, {variant.name}")

    timed = take_turns(variants, list(drawing.batches(jobs, batch)), conditioner, on_turn)
    work.start("memory")
    memory = {precision: memory_of(folder, jobs[0].prompt, threads) for precision, folder in engines.items()}
    return Table(timed, memory)


@dataclass(frozen=True)
class _BenchmarkOptions:
    """Value of each option, by its name in click."""

    engine: Path
    runs: int
    batch: int
    prompts: tuple[str, ...]
    threads: int | None
    spec_file: Path | None
    json_file: Path | None
    md_file: Path | None
    overwrite: bool


@click.command()
@click.argument("engine", type=ENGINE)
@click.option(
    "--runs",
    type=number(limits.RUNS),
    default=5,
    show_default=True,
    help="Runs of each method; the report shows medians.",
)
@click.option("--batch", type=number(limits.MAX_BATCH), default=1, show_default=True, help="Batch size in images.")
@sample_prompts_option
@threads_option("every variant")
@moved_spec_option
@click.option("--json", "json_file", type=WRITES, help="JSON file to write, with all figures.")
@click.option("--markdown", "md_file", type=WRITES, help="Markdown file to write, with the tables.")
@overwrite_option
@gathered(_BenchmarkOptions)
def command(given: _BenchmarkOptions) -> None:
    """Time eager PyTorch, our fp32 and our int8 engine, plain and speculating, side by side in one run.

    \b
    Example:
      python -m tools.demo.benchmark engines/emoji --markdown out/figures.md
    """
    for option, path in (("--json", given.json_file), ("--markdown", given.md_file)):
        if path is not None:
            check_output(path, option, overwrite=given.overwrite)
    threads = cores.threads_for(given.threads)
    with progress() as work:
        table = measure(
            given.engine,
            runs=given.runs,
            batch=given.batch,
            prompts=given.prompts,
            threads=threads,
            spec_file=given.spec_file,
            work=work,
        )
    here = machine(threads)
    note = f"{here['cpu']}, {threads} threads, {given.batch} image(s) at once, medians of {given.runs} interleaved runs"
    goals = [goal.cells() for goal in table.goals()]
    show_table(COLUMNS, table.rows(), title=note)
    for line in table.losing():
        say(f"speculation does not pay here: {line}")
    show_table(GOAL_COLUMNS, goals, title="goals")
    if given.json_file:
        document = {"machine": here, "runs": given.runs, "batch": given.batch, **table.as_dict()}
        write_output(given.json_file, (json.dumps(document, indent=2) + "\n").encode(), overwrite=given.overwrite)
    if given.md_file:
        body = "".join(f"\nSpeculation does not pay here: {line}.\n" for line in table.losing())
        text = f"{note}\n\n{markdown(COLUMNS, table.rows())}{body}\n{markdown(GOAL_COLUMNS, goals)}"
        write_output(given.md_file, text.encode(), overwrite=given.overwrite)


def main() -> None:
    """Entry point."""
    enter(command)


if __name__ == "__main__":
    main()
