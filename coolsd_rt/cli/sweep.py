"""`coolsd-rt sweep ENGINE SPEC`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coolsd_rt.cli.main import Interrupted
from coolsd_rt.cli.numbers import threads_option
from coolsd_rt.cli.options import reading_options
from coolsd_rt.cli.output import json_option, note, print_json, say, show_table
from coolsd_rt.cli.paths import ENGINE, SPEC, WRITES_IN
from coolsd_rt.cli.terminal.progress import Work, progress
from coolsd_rt.workflows.opening import PromptInputs

if TYPE_CHECKING:  # needs matplotlib, which --help must not
    from coolsd_rt.sweep.results import PointResult, Results
    from coolsd_rt.sweep.run import SweepCallbacks


class _SweepScreen:
    """Progress in batches over all points. Without a progress bar, one line per point as well."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.points = self.done = 0

    def listener(self) -> SweepCallbacks:
        from coolsd_rt.sweep.run import SweepCallbacks

        return SweepCallbacks(
            lambda line: note(f"warning: {line}"), self._start, self._drawing, self._batch, self._point
        )

    def _start(self, points: int, batches: int) -> None:
        self.points = points
        self._work.start("sweep", batches, f"batches of {points} points")

    def _drawing(self, name: str) -> None:
        self._work.update(figures=name)

    def _batch(self) -> None:
        self._work.advance()

    def _point(self, result: PointResult, was_there: bool) -> None:
        self.done += 1
        if self._work.plain:
            figures = [f"accept length {result.mean_acceptance_length.value:.2f}"]
            figures += [f"{name} {figure.value:.3g}" for name, figure in result.quality.items()]
            done = " (already finished)" if was_there else ""
            note(f"point {self.done} of {self.points}: {result.name}: {', '.join(figures)}{done}")


def _show(results: Results, out: Path) -> None:
    measures = list(results.pareto)
    rows = []
    for p in results.points:
        marks = ["lossless"] if p.lossless else []
        marks += [f"{name} front" for name in measures if p.name in results.pareto[name]]
        quality = [str(p.quality[name]) for name in measures]
        speed = f"{p.speed.tokens_per_second:.0f}"
        rows.append((p.name, str(p.mean_acceptance_length), *quality, speed, ", ".join(marks)))
    columns = ("point", "accept length (95%)", *(f"{name} (95%)" for name in measures), "tokens/s", "")
    show_table(columns, rows, title="front: no other point is better in both accept length and that figure")
    say("tokens/s: drawn once, beside other work; no benchmark")
    say(f"figures and plots: {out}")


@click.command()
@click.argument("engine", type=ENGINE)
@click.argument("spec", type=SPEC)
@click.option("--out", type=WRITES_IN, help="Output folder of the sweep; default: out/ followed by the file's name.")
@click.option("--engine-spec", type=SPEC, help="Spec file of the engine, if it was moved after the build.")
@reading_options
@threads_option()
@json_option
def command(
    engine: Path,
    spec: Path,
    out: Path | None,
    engine_spec: Path | None,
    threads: int | None,
    features: Path | None,
    text_encoder: Path | None,
    as_json: bool,
) -> None:
    """Draw and measure every point of a grid of run-time values: quality against accept length, with the Pareto front.

    SPEC is the YAML file of a sweep. After an interruption the same command resumes: finished points are kept, and of
    the unfinished point all batches but the last. The folder then holds results.json, pareto.png, pareto.svg, and one
    contact sheet per point.

    \b
    Example:
      python tools/emoji_references.py out/emoji-references
      coolsd-rt sweep engines/emoji pipelines/emoji-sweep-rules.yaml
    """
    from coolsd_rt.sweep.run import SweepConfig, sweep  # needs matplotlib

    out, reading = out or Path("out") / spec.stem, PromptInputs(features, text_encoder)
    with progress(quiet=as_json) as work:
        screen = _SweepScreen(work)
        try:
            results = sweep(SweepConfig(engine, spec, out, engine_spec, threads, reading), screen.listener())
        except KeyboardInterrupt as e:
            line = f"interrupted: {screen.done} of {screen.points} points are in {out}; run the same command to resume"
            raise Interrupted(line if screen.points else "interrupted") from e
    if as_json:
        print_json(results.model_dump(mode="json"))
    else:
        _show(results, out)
