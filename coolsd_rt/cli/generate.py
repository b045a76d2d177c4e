"""`coolsd-rt generate ENGINE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coolsd_rt import limits
from coolsd_rt.cli.entry import overwrite_option
from coolsd_rt.cli.numbers import Numbers, number, threads_option
from coolsd_rt.cli.options import reading_options
from coolsd_rt.cli.output import json_option, note, print_json, show_fields
from coolsd_rt.cli.paths import ENGINE, READS_OR_STDIN, WRITES_IN
from coolsd_rt.cli.terminal.progress import Work, progress
from coolsd_rt.files import read_lines
from coolsd_rt.law import RESAMPLERS, RULES, SCHEDULES
from coolsd_rt.spec import is_spec
from coolsd_rt.workflows.generate.report import GenerateReport
from coolsd_rt.workflows.generate.run import DRAFTS, GenerateCallbacks, GenerateConfig, generate

KEYS = {
    "schedule": "schedule.kind",
    "delta": "schedule.delta",
    "nu": "schedule.nu",
    "beta": "schedule.beta",
    "floor": "schedule.floor",
    "values": "schedule.values",
    "resampler": "resampler.kind",
    "rule": "acceptance.rule",
    "bound": "acceptance.bound",
    "factor": "acceptance.factor",
    "neighbours": "acceptance.neighbours",
    "confidence": "pacing.confidence",
    "draft_confidence": "pacing.draft_confidence",
    "cfg_scale": "sampling.cfg_scale",
    "cfg_interval": "sampling.cfg_interval",
    "temperature": "sampling.temperature",
    "top_k": "sampling.top_k",
    "top_p": "sampling.top_p",
}
"""Options to the run-time keys of the spec that they replace. Their values are checked by the spec's own models."""


class _GenerateScreen:
    """Tokens of all images. Without a bar, a line an image as well."""

    def __init__(self, work: Work) -> None:
        self._work, self._whole = work, 0

    def listener(self) -> GenerateCallbacks:
        return GenerateCallbacks(
            lambda line: note(f"warning: {line}"), self._start, self._tokens, self._image, self._skipped
        )

    @property
    def whole(self) -> int:
        """Images of the request that are there, drawn now or before."""
        return self._whole

    def _start(self, tokens: int) -> None:
        self._work.start("drawing", tokens, "tokens", announce=False)

    def _tokens(self, done: int, accept_length: float) -> None:
        self._work.update(done, figures=f"accept length {accept_length:.2f}")

    def _image(self, path: Path) -> None:
        self._whole += 1
        if not self._work.on_terminal:
            note(str(path))

    def _skipped(self, path: Path) -> None:
        self._whole += 1
        if not self._work.on_terminal:
            note(f"{path}: already there")


def _show(report: GenerateReport, out: Path) -> None:
    rows: dict[str, object] = {"images": _counts(report, out)}
    rows |= _figures(report) if report.tokens else {}
    if report.sheet:
        rows["sheet"] = report.sheet
    show_fields(rows)


def _counts(report: GenerateReport, out: Path) -> str:
    skipped = len(report.drawn) - report.written
    if not skipped:
        return f"{report.written} in {out}"
    return f"{len(report.drawn)} in {out}: {report.written} written, {skipped} already there"


def _figures(report: GenerateReport) -> dict[str, object]:
    s, total = report.statistics, report.seconds
    by_position = " ".join(f"{share:.2f}" for share in s.acceptance_by_position)
    rows: dict[str, object] = {
        "seconds": f"{total:.2f} (and {report.seconds_load:.2f} to load the engine)",
        "tokens/s": f"{report.tokens_per_second:.1f}",
        "accept length": f"{s.mean_acceptance_length:.2f}",
        "acceptance by position": by_position or "no draft",
        "rounds": int(s.rounds.sum()),
    }
    if report.loop == "device":
        rows["loop"] = "the device's own"
    for phase, seconds in report.seconds_by_phase.items():
        if seconds is None:
            continue
        rows[f"seconds in {phase}"] = f"{seconds:.2f} ({seconds / total:.0%})"
    return rows


@click.command()
@click.argument("engine", type=ENGINE)
@click.option("-p", "--prompt", "prompts", multiple=True, metavar="TEXT", help="What to draw. Repeatable.")
@click.option("--prompts", "file", type=READS_OR_STDIN, help="A file of prompts, one a line; - is standard input.")
@click.option(
    "-n",
    "--images",
    "variants",
    type=number(limits.IMAGES),
    default=1,
    show_default=True,
    help="Images per prompt.",
)
@click.option(
    "--seed",
    type=number(limits.SEED),
    default=0,
    show_default=True,
    help="Image i of any prompt (i from 0) has seed + i.",
)
@click.option("--out", type=WRITES_IN, default=Path("out"), show_default=True, help="Folder to write.")
@click.option("--delta", type=number(limits.OMEGA), help="Relaxation budget of the schedule; 1.1 in the paper.")
@click.option("--schedule", type=click.Choice(SCHEDULES), help="Schedule of the relaxation; none is lossless.")
@click.option("--nu", type=number(limits.DECAY), help="Decay of the exponential and excess schedules.")
@click.option("--beta", type=number(limits.OMEGA), help="What the excess schedule's first omega has above 1.")
@click.option(
    "--floor", type=number(limits.OMEGA), help="Least relaxation of any position; 0 is the schedule as it is."
)
@click.option("--values", metavar="W,W,...", type=Numbers(limits.OMEGA), help="Every omega of the schedule custom.")
@click.option("--resampler", type=click.Choice(RESAMPLERS), help="Law after a rejection.")
@click.option("--rule", type=click.Choice([r for r in RULES if r != "synthetic"]), help="When a draft token is kept.")
@click.option(
    "--bound", type=number(limits.PROBABILITY), help="Most probability that a token may borrow (rule lantern)."
)
@click.option(
    "--factor", type=number(limits.FACTOR), help="What a token may borrow, as a multiple of its own (rule lantern_pp)."
)
@click.option(
    "--neighbours", type=number(limits.NEIGHBOURS), help="How many of the nearest codes may lend (lantern rules)."
)
@click.option(
    "--draft-length",
    type=number(limits.DRAFT_LENGTH, "for decoding without a draft use --plain"),
    help="Tokens drafted a round; another than the built one goes step by step.",
)
@click.option("--plain", is_flag=True, help="Decode without a draft: the baseline of every comparison.")
@click.option(
    "--confidence",
    type=number(limits.PROBABILITY),
    help="Draft only where the target was this sure of its last token; 0: always.",
)
@click.option(
    "--draft-confidence",
    type=number(limits.PROBABILITY),
    help="End a round's drafts before one the draft is less sure of.",
)
@click.option(
    "--draft", type=click.Choice(DRAFTS), help="Draft with the target's own last round: needs no draft model."
)
@click.option("--cfg-scale", type=number(limits.CFG_SCALE), help="Guidance; 1 is none.")
@click.option("--cfg-interval", type=number(limits.CFG_INTERVAL), help="Last decode step with guidance; -1 guides all.")
@click.option("--temperature", type=number(limits.TEMPERATURE), help="Divides the logits.")
@click.option("--top-k", type=number(limits.TOP_K), help="Keep the k likeliest tokens; 0 keeps all.")
@click.option("--top-p", type=number(limits.TOP_P), help="Keep the likeliest tokens of this mass; 1 keeps all.")
@reading_options
@threads_option()
@overwrite_option
@json_option
def command(
    engine: Path,
    prompts: tuple[str, ...],
    file: Path | None,
    variants: int,
    seed: int,
    out: Path,
    draft_length: int | None,
    plain: bool,
    draft: str | None,
    features: Path | None,
    text_encoder: Path | None,
    threads: int | None,
    overwrite: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Draw images from prompts with a built engine: one PNG an image, and sheet.png for several.

    ENGINE is engines/NAME (its current build), one fingerprint's folder, or a spec: it is built into engines/ first
    where it is not. Options that are not given keep the values of the engine's spec. Each PNG carries its prompt, seed,
    spec and law in the text chunk "coolsd-rt".

    No file is replaced unasked. An image that OUT has already (same engine, prompt, seed and settings) is skipped, so
    that the same command goes on after an interruption; one of it that is damaged is drawn again. Where a name has any
    other file, nothing is drawn and the exit code is 2: give another --out, or --overwrite, which draws and replaces
    everything. sheet.png always shows the images of the last run that made one; if it is not a contact sheet of
    coolsd-rt it is refused too. A run of one image leaves an old sheet, unless it replaced an image shown on it: then
    it removes the sheet.

    \b
    Example:
      coolsd-rt generate engines/emoji -p "red apple" -p "yellow star" -n 4
      coolsd-rt generate pipelines/emoji.yaml -p "red apple"
    """
    everything = [*prompts, *(read_lines(file) if file else [])]
    overrides = {KEYS[name]: value for name, value in values.items() if value is not None}
    request = GenerateConfig(
        everything,
        out,
        variants,
        seed,
        overrides,
        draft_length,
        plain,
        threads,
        draft,
        features,
        text_encoder,
        overwrite,
    )
    if is_spec(engine):
        from coolsd_rt.cli.build import engine_of  # not needed where engines only run

        engine = engine_of(engine, as_json)
    with progress() as work:
        screen = _GenerateScreen(work)
        try:
            report = generate(engine, request, screen.listener())
        except KeyboardInterrupt:
            note(f"{screen.whole} images are whole in {out}")
            raise
    if as_json:
        print_json(report.as_dict())
    else:
        _show(report, out)
