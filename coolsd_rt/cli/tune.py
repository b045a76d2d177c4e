"""`coolsd-rt tune ENGINE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from coolsd_rt import limits
from coolsd_rt.cli.entry import gathered, overwrite_option
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.options import image_seed_option, moved_spec_option, reading_options, sample_prompts_option
from coolsd_rt.cli.output import json_option, note, print_json, say, show_table
from coolsd_rt.cli.paths import ENGINE, WRITES, WRITES_IN
from coolsd_rt.cli.recording import RecordingOptions
from coolsd_rt.cli.terminal.progress import batches
from coolsd_rt.cli.text_options import max_tokens_option
from coolsd_rt.errors import UserError

Figure = Literal["accept_length", "kl", "tv"]
_BUDGETS: dict[Figure, str] = {"accept_length": "--accept-length", "kl": "--kl", "tv": "--tv"}


def _budget(values: dict[Figure, float | None]) -> tuple[Figure, float]:
    given = [(name, value) for name, value in values.items() if value is not None]
    if len(given) != 1:
        found = " and ".join(_BUDGETS[name] for name, _ in given) or "none"
        raise UserError("tune", expected=f"one of {', '.join(_BUDGETS.values())}", found=found)
    return given[0]


@dataclass(frozen=True)
class _TuneOptions(RecordingOptions):
    """Value of each option, by its name in click."""

    accept_length: float | None
    kl: float | None
    tv: float | None
    confidence: float
    resampler: str
    write: Path | None
    plot: Path | None
    overwrite: bool


@click.command()
@click.argument("engine", type=ENGINE)
@click.option(
    "--accept-length", type=number(limits.ACCEPT_LENGTH), help="Budget: reach this accept length with the lowest KL."
)
@click.option(
    "--kl",
    type=number(limits.KL),
    help="Budget: maximise the accept length within this KL per generated token, in nats.",
)
@click.option(
    "--tv",
    type=number(limits.TV),
    help="Budget: maximise the accept length within this total variation per token (the paper's bound).",
)
@click.option(
    "--confidence",
    type=number(limits.CONFIDENCE),
    default=0.95,
    show_default=True,
    help="Confidence that images other than the recorded ones meet the budget.",
)
@click.option(
    "--resampler",
    type=click.Choice(["optimal", "waterfill"]),
    default="optimal",
    show_default=True,
    help="Resampler that the schedules are compared with, and that --write puts into the spec.",
)
@click.option(
    "-n",
    "--images",
    "images",
    type=number(limits.IMAGES),
    default=32,
    show_default=True,
    help="Number of images, or of texts, to record, at least 16.",
)
@sample_prompts_option
@image_seed_option
@click.option(
    "--recording",
    "folder",
    type=WRITES_IN,
    help="Folder that stores the recording; an interrupted recording is resumed.",
)
@click.option(
    "--write", type=WRITES, help="Spec file to write with the best schedule, in the folder of the engine's spec."
)
@click.option("--plot", type=WRITES, help="Plot to write: accept length against KL (.png or .svg).")
@max_tokens_option
@moved_spec_option
@reading_options
@threads_option()
@overwrite_option
@json_option
@gathered(_TuneOptions)
def command(given: _TuneOptions) -> None:
    """Find the best schedule under one budget (--accept-length, --kl or --tv) on recorded rounds: a free omega per
    position, compared with the schedule families.

    The best schedule is chosen on a third of the images. Its relaxation is chosen on the other images: the largest one
    whose one-sided bound over images meets the budget, so that new images meet the budget with the stated confidence.
    Few images give a wide margin; the result reports how many images reduce the margin to a tenth of the budget, and
    fewer than 16 images are refused. All figures assume full-length drafts in every round; pacing, if the spec sets it,
    shortens the rounds.

    \b
    Example:
      coolsd-rt tune engines/emoji --kl 0.02 --write pipelines/emoji-tuned.yaml
    """
    from coolsd_rt.schedules import tune
    from coolsd_rt.schedules.budget import Budget

    figure, value = _budget({"accept_length": given.accept_length, "kl": given.kl, "tv": given.tv})
    budget = Budget(figure, value, given.confidence)
    request = given.recording
    with batches("recording", quiet=given.as_json) as on_batch:
        tuned = tune.tune_engine(
            request, budget, given.resampler, given.write, given.plot, on_batch, overwrite=given.overwrite
        )
    if given.as_json:
        print_json(tuned.as_dict())
        return
    rows: list[tuple[Any, ...]] = [
        (
            j.name,
            f"{j.outlook.accept_length:.3f}",
            f"{j.outlook.kl_per_token:.4f}",
            f"{j.outlook.tv_bound_per_token:.4f}",
            " ".join(f"{w:.3f}" for w in j.omegas),
        )
        for j in tuned.judged
    ]
    title = f"every schedule at the budget, on {tuned.images.held_out} held-out {tuned.noun}"
    show_table(("schedule", "accept length", "KL per token", "TV bound per token", "omega"), rows, title=title)
    say(tuned.verdict)
    say(tuned.promise)
    if tuned.advice:
        note(tuned.advice)
    for path in (given.write, given.plot):
        if path:
            note(f"{path}: written")
