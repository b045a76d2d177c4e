"""`coolsd-rt bench ENGINE`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coolsd_rt import limits
from coolsd_rt.bench.variants import NAMES, VariantChoice
from coolsd_rt.cli.entry import gathered, overwrite_option
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.options import moved_spec_option, reading_options, sample_prompts_option
from coolsd_rt.cli.output import json_option, note, print_json, say, show_table
from coolsd_rt.cli.paths import ENGINE, WRITES
from coolsd_rt.cli.terminal.progress import Work, progress
from coolsd_rt.errors import UserError
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows.opening import PromptInputs

if TYPE_CHECKING:
    from coolsd_rt.bench.report import BenchReport
    from coolsd_rt.bench.run import BenchCallbacks

_DELTAS = VariantChoice.deltas


class _BenchScreen:
    """Progress of a benchmark: every variant in every run. The first run is a warm-up and is not timed."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def listener(self) -> BenchCallbacks:
        from coolsd_rt.bench.run import BenchCallbacks

        return BenchCallbacks(lambda line: note(f"warning: {line}"), self._start, self._variant)

    def _start(self, variants: int, turns: int) -> None:
        self._work.start("bench", variants * turns, f"runs of {variants} variants")

    def _variant(self, name: str) -> None:
        self._work.advance(name)


def _writer(html: Path | None, out: Path | None, overwrite: bool) -> Callable[[BenchReport], None]:
    """What writes the files, checked before any work: the folders, and what the page is drawn with."""
    if html is not None and html == out:
        raise UserError("--html and --out", expected="two files", found=f"{html} twice")
    for option, path in (("--html", html), ("--out", out)):
        if path is not None:
            check_output(path, option, overwrite=overwrite)
    if html is not None:
        import coolsd_rt.bench.html as pages  # needs matplotlib

    def write(report: BenchReport) -> None:
        if out is not None:
            data = (json.dumps(report.as_dict(), indent=2, allow_nan=False) + "\n").encode()
            write_output(out, data, overwrite=overwrite)
            note(f"{out}: written")
        if html is not None:
            write_output(html, pages.page(report).encode(), overwrite=overwrite)
            note(f"{html}: written")

    return write


def _show(report: BenchReport) -> None:
    from coolsd_rt.bench.at_once import table as at_once_table

    say(report.note)
    for table in report.tables:
        say("")
        show_table(table.columns, table.rows, title=table.title)
    if report.at_once:
        sizes = at_once_table(report.at_once)
        say("")
        show_table(sizes.columns, sizes.rows, title=sizes.title)
    say("")
    for line in report.verdicts:
        say(line)


@dataclass(frozen=True)
class _BenchOptions:
    """Value of each option, by its name in click."""

    engine: Path
    runs: int
    batch: int | None
    prompts: tuple[str, ...]
    seed: int
    names: tuple[str, ...]
    deltas: tuple[float, ...]
    lengths: tuple[int, ...]
    jacobi_length: int | None
    confidence: float | None
    draft_confidence: float | None
    spec_file: Path | None
    threads: int | None
    html: Path | None
    out: Path | None
    overwrite: bool
    features: Path | None
    text_encoder: Path | None
    as_json: bool


@click.command()
@click.argument("engine", type=ENGINE)
@click.option(
    "--runs",
    type=number(limits.RUNS),
    default=6,
    show_default=True,
    help="Runs of each variant; a 95% interval requires at least 6.",
)
@click.option(
    "--batch",
    type=number(limits.MAX_BATCH),
    help="Batch size in images, at most the engine's max_batch. Default: 1, and the variants lossless and auto also at "
    "2, 4 and 8 images, as far as the engine takes them.",
)
@sample_prompts_option
@click.option(
    "--seed",
    type=number(limits.SEED),
    default=0,
    show_default=True,
    help="Random seed. Image i uses seed + i (modulo 2^64) in every variant.",
)
@click.option(
    "--variant",
    "--ways",
    "names",
    multiple=True,
    type=click.Choice(NAMES),
    help="Decoding variant to time beside plain decoding. Repeatable; default: all variants that the engine supports. "
    "--ways is the former name of this option.",
)
@click.option(
    "--delta",
    "deltas",
    multiple=True,
    type=number(limits.OMEGA),
    default=_DELTAS,
    show_default=True,
    help="Relaxation budget of COOL-SD. Repeatable; uniform and linear use the first value.",
)
@click.option(
    "--draft-length",
    "lengths",
    multiple=True,
    type=number(limits.DRAFT_LENGTH),
    help="Tokens drafted per round. Repeatable; a length other than the built one runs each draft step separately.",
)
@click.option(
    "--jacobi-length",
    type=number(limits.DRAFT_LENGTH),
    help="Tokens in the Jacobi window; default: 15, or fewer in a small image.",
)
@click.option(
    "--confidence",
    type=number(limits.PROBABILITY),
    help="For all variants with a draft model: skip drafting unless the target's top probability for the previous "
    "token is at least this; 0 always drafts.",
)
@click.option(
    "--draft-confidence",
    type=number(limits.PROBABILITY),
    help="Draft confidence of all variants with a draft model: stop drafting before a token whose top draft "
    "probability is below this; 0 never stops.",
)
@moved_spec_option
@reading_options
@threads_option()
@click.option("--html", type=WRITES, help="HTML report to write, a single file with plots.")
@click.option("--out", type=WRITES, help="JSON file to write, with the figures and the raw samples.")
@overwrite_option
@json_option
@gathered(_BenchOptions)
def command(given: _BenchOptions) -> None:
    """Time plain, lossless, relaxed and other variants of decoding side by side, and report whether speculation is
    faster than plain decoding.

    All variants use the same prompts and seeds, in interleaved runs. Figures are medians; intervals are 95% intervals
    of order statistics, exact for few samples; ratios to plain decoding are paired by run.

    \b
    Example:
      coolsd-rt bench engines/emoji --html out/bench.html
      coolsd-rt bench engines/emoji --variant lossless --variant cool --delta 1.1 --runs 9
    """
    from coolsd_rt.bench.run import BenchConfig, bench  # needs scipy

    write = _writer(given.html, given.out, given.overwrite)
    choice = VariantChoice(given.names, given.deltas, given.lengths, given.jacobi_length)
    request = BenchConfig(
        given.engine,
        given.runs,
        given.batch,
        given.prompts,
        given.seed,
        choice,
        given.confidence,
        given.draft_confidence,
        given.spec_file,
        given.threads,
        PromptInputs(given.features, given.text_encoder),
    )
    with progress(quiet=given.as_json) as work:
        report = bench(request, _BenchScreen(work).listener())
    if given.as_json:
        print_json(report.as_dict())
    else:
        _show(report)
    write(report)
