"""`coolsd-rt bench ENGINE`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import MofNCompleteColumn, Progress, TaskID

from coolsd_rt.cli.options import reading_options
from coolsd_rt.cli.output import json_option, note, print_json, progress, say, show_table
from coolsd_rt.errors import UserError
from coolsd_rt.measure.bench_ways import NAMES, Choice
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows.entry import overwrite_option
from coolsd_rt.workflows.opening import Reading

if TYPE_CHECKING:
    from coolsd_rt.measure.bench import Listener
    from coolsd_rt.measure.bench_report import Report

_DELTAS = Choice.deltas
_SEEDS = click.IntRange(min=0, max=2**64 - 1)


class _Screen:
    """A bar of pictures on a terminal, a line a turn elsewhere unless `quiet`. All of it on stderr."""

    def __init__(self, bar: Progress, quiet: bool) -> None:
        self._bar, self._quiet = bar, quiet
        self._task, self._ways, self._turns, self._done = TaskID(0), 0, 0, 0

    def listener(self) -> Listener:
        from coolsd_rt.measure.bench import Listener

        return Listener(lambda line: note(f"warning: {line}"), self._start, self._way)

    def _start(self, ways: int, turns: int) -> None:
        self._ways, self._turns = ways, turns
        self._task = self._bar.add_task("warming up", total=ways * turns)

    def _way(self, name: str) -> None:
        self._done += 1
        turn, rest = divmod(self._done, self._ways)
        self._bar.update(self._task, completed=self._done, description=name)
        if rest == 0 and self._bar.disable and not self._quiet:
            note("warmed up" if turn == 1 else f"turn {turn - 1} of {self._turns - 1}")


def _writer(html: Path | None, out: Path | None, overwrite: bool) -> Callable[[Report], None]:
    """What writes the files, checked before any work: the folders, and what the page is drawn with."""
    if html is not None and html == out:
        raise UserError("--html and --out", expected="two files", found=f"{html} twice")
    for option, path in (("--html", html), ("--out", out)):
        if path is not None:
            check_output(path, option, overwrite=overwrite)
    if html is not None:
        import coolsd_rt.measure.bench_html as pages  # needs matplotlib

    def write(report: Report) -> None:
        if out is not None:
            data = (json.dumps(report.as_dict(), indent=2, allow_nan=False) + "\n").encode()
            write_output(out, data, overwrite=overwrite)
            note(f"{out}: written")
        if html is not None:
            write_output(html, pages.page(report).encode(), overwrite=overwrite)
            note(f"{html}: written")

    return write


def _show(report: Report) -> None:
    say(report.note)
    for table in report.tables:
        say("")
        show_table(table.columns, table.rows, title=table.title)
    say("")
    for line in report.verdicts:
        say(line)


@click.command()
@click.argument("engine", type=click.Path(path_type=Path))
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=6,
    show_default=True,
    help="Turns of each way; 6 are the fewest for a 95% interval.",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Pictures at once.")
@click.option("-p", "--prompt", "prompts", multiple=True, metavar="TEXT", help="Prompt; default: the demo's own.")
@click.option("--seed", type=_SEEDS, default=0, show_default=True, help="Picture i has seed + i, in every way.")
@click.option(
    "--ways",
    "names",
    multiple=True,
    type=click.Choice(NAMES),
    help="A way to time beside plain decoding. Repeatable; default: all that the engine can go.",
)
@click.option(
    "--delta",
    "deltas",
    multiple=True,
    type=float,
    default=_DELTAS,
    show_default=True,
    help="Budget of COOL-SD. Repeatable; uniform and linear take the first.",
)
@click.option(
    "--draft-length",
    "lengths",
    multiple=True,
    type=int,
    help="Tokens drafted a round. Repeatable; another than the built one goes step by step.",
)
@click.option("--jacobi-length", type=int, help="Tokens in Jacobi's window; default: 15, or fewer in a small image.")
@click.option("--confidence", type=float, help="Pacing of all ways with a draft model; 0 drafts always.")
@click.option("--draft-confidence", type=float, help="End their drafts before one the draft is less sure of; 0: never.")
@click.option("--spec", "spec_file", type=click.Path(path_type=Path), help="The spec, if it has moved since the build.")
@reading_options
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the engine; default: the usable cores.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a report with plots here, one file.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures and raw samples here, as JSON.")
@overwrite_option
@json_option
def command(
    engine: Path, runs: int, batch: int, prompts: tuple[str, ...], seed: int, names: tuple[str, ...],
    deltas: tuple[float, ...], lengths: tuple[int, ...], jacobi_length: int | None, confidence: float | None,
    draft_confidence: float | None, spec_file: Path | None, threads: int | None, html: Path | None, out: Path | None,
    overwrite: bool, features: Path | None, text_encoder: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Time plain, lossless, relaxed and rival decoding side by side, and say whether speculation pays.

    All ways draw the same pictures, taking turns. Figures are medians; intervals are exact for few samples (95%, order
    statistics), and ratios to plain decoding are paired by turn.

    \b
    Example:
      coolsd-rt bench engines/emoji --html out/bench.html
      coolsd-rt bench engines/emoji --ways lossless --ways cool --delta 1.1 --runs 9
    """
    from coolsd_rt.measure.bench import Request, bench  # needs scipy

    write = _writer(html, out, overwrite)
    choice = Choice(names, deltas, lengths, jacobi_length)
    request = Request(engine, runs, batch, prompts, seed, choice, confidence, draft_confidence, spec_file, threads,
                      Reading(features, text_encoder))  # fmt: skip
    with progress(MofNCompleteColumn()) as bar:
        report = bench(request, _Screen(bar, as_json).listener())
    if as_json:
        print_json(report.as_dict())
    else:
        _show(report)
    write(report)
