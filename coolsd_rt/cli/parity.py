"""`coolsd-rt parity ENGINE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from coolsd_rt import limits
from coolsd_rt.cli.entry import gathered
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.options import image_seed_option, moved_spec_option, reading_options, sample_prompts_option
from coolsd_rt.cli.output import json_option, note, print_json, say, show_fields, show_table
from coolsd_rt.cli.paths import ENGINE
from coolsd_rt.cli.terminal.progress import Work, progress
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.opening import PromptInputs
from coolsd_rt.workflows.parity.run import IMAGES, TEXT_TOKENS, Parity, ParityCallbacks, parity
from coolsd_rt.workflows.parity.widths import WidthDependence


def _show(outcome: Parity) -> None:
    whole, one = outcome.images.as_dict(outcome.compared), outcome.compared.removesuffix("s")
    rows = [
        (name, f"{g['max_error']:.2e}", f"{g['relative_error']:.2e}", f"{g['mean_tv']:.2e}" if "mean_tv" in g else "")
        for name, g in outcome.graphs.as_dict().items()
    ]
    show_table(("graph", "max error", "relative", "mean TV"), rows)
    show_fields(
        {
            "precision": outcome.precision,
            **_compared(outcome),
            "identical to the token": f"{whole['identical']} ({whole['identical_share']:.1%})",
            "equal tokens": f"{whole['equal_tokens_share']:.2%}",
            "batch invariance": _invariance(outcome.widths),
        }
    )
    differences: list[dict[str, Any]] = whole["differences"]
    if differences:
        columns = (one, "prompt", "token", "decision", "margin", "probability error", "explained")
        cells = [
            (
                d[one],
                d["prompt"],
                d["token"],
                d["decision"],
                f"{d['margin']:.1e}",
                f"{d['error']:.1e}",
                "yes" if d["explained"] else "no",
            )
            for d in differences
        ]
        show_table(columns, cells, f"first difference of each {one}")
    say(f"parity: {'passed' if outcome.passed else 'FAILED'}; the receipt is in the manifest")


def _compared(outcome: Parity) -> dict[str, object]:
    if outcome.tokens is None:
        return {"whole images": outcome.images.images}
    return {"texts": f"{outcome.images.images}, the first {outcome.tokens} tokens of each"}


def _invariance(found: WidthDependence) -> str:
    if found.exact:
        return "bitwise equal at any step width and in any batch"
    return f"logits change by {found.width:.1e} with the step width, by {found.mates:.1e} with the batch"


def listener_of(work: Work, images: int, writes: str = "image") -> ParityCallbacks:
    """Shows how many images, or texts, are drawn on both sides."""
    work.start("parity", unit=f"{writes} pairs")
    return ParityCallbacks(images=lambda done: work.update(done, images))


@dataclass(frozen=True)
class _ParityOptions:
    """Value of each option, by its name in click."""

    engine: Path
    images: int
    max_tokens: int | None
    prompts: tuple[str, ...]
    seed: int
    spec_file: Path | None
    threads: int | None
    features: Path | None
    text_encoder: Path | None
    as_json: bool


@click.command()
@click.argument("engine", type=ENGINE)
@click.option(
    "-n",
    "--images",
    "images",
    type=number(limits.IMAGES),
    default=IMAGES,
    show_default=True,
    help="Number of whole images, or of texts, to compare.",
)
@click.option(
    "--max-tokens",
    type=number(limits.TEXT_TOKENS),
    help=f"Texts: tokens of each; default: {TEXT_TOKENS}, or as many as the engine has.",
)
@sample_prompts_option
@image_seed_option
@moved_spec_option
@reading_options
@threads_option("the engine and of the reference")
@json_option
@gathered(_ParityOptions)
def command(given: _ParityOptions) -> None:
    """Verify an engine against the eager PyTorch reference: the logits of each graph, and whole images.

    Requires the weights that the engine was built from, and the extra "build" (torch). Writes a receipt to the engine's
    manifest, which `inspect` shows. The exit code is 1 if an error exceeds the threshold of the engine's precision.

    \b
    Example:
      coolsd-rt parity engines/emoji
    """
    with progress(quiet=given.as_json) as work:
        reading = PromptInputs(given.features, given.text_encoder)
        opened = OpenedEngine.at(given.engine, reading, given.threads, given.spec_file)
        outcome = parity(
            opened,
            images=given.images,
            max_tokens=given.max_tokens,
            prompts=given.prompts,
            seed=given.seed,
            listener=listener_of(work, given.images, opened.spec.writes),
        )
    if given.as_json:
        print_json(outcome.receipt())
    else:
        _show(outcome)
    for line in outcome.failures:
        note(f"error: {line}")
    if not outcome.passed:
        click.get_current_context().exit(1)
