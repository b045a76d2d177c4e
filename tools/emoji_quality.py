"""Measure the demo: `python tools/emoji_quality.py engines/emoji`.

Draws trained captions with a built engine and prints, as text or `--json`: how often the nearest glyph of all trained
is the prompt's own (`retrieval`), and for each way of decoding the accept length. (Entropy, TV(P, Q) and acceptance are
`coolsd-rt analyze`'s.)

Needs the `cpu` and `train` extras and the font.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coolsd_rt import limits  # noqa: E402  (the path above makes the checkout importable)
from coolsd_rt.cli.entry import enter, gathered  # noqa: E402
from coolsd_rt.cli.numbers import number  # noqa: E402
from coolsd_rt.cli.paths import ENGINE  # noqa: E402
from coolsd_rt.cli.terminal import print_json, say  # noqa: E402
from coolsd_rt.errors import UserError  # noqa: E402
from coolsd_rt.spec import with_overrides  # noqa: E402
from coolsd_rt.workflows import drawing  # noqa: E402
from coolsd_rt.workflows.opened import OpenedEngine  # noqa: E402
from tools.emoji import data  # noqa: E402
from tools.emoji.quality import retrieve  # noqa: E402


def measure(
    engine_path: Path, prompts: int, seed: int, mode: dict[str, Any], plain: bool, length: int | None
) -> dict[str, Any]:
    """One way of decoding over `prompts` trained captions, chosen by `seed`. Synthetic acceptance is refused."""
    opened = OpenedEngine.at(engine_path)
    spec = opened.spec
    if length is not None:
        spec = spec.model_copy(update={"draft": spec.draft.model_copy(update={"length": length})})
    spec = with_overrides(spec, mode)
    if spec.acceptance.rule == "synthetic":
        raise UserError("quality", expected="a rule that looks at P and Q", found="synthetic acceptance")
    conditioner, engine = opened.conditioner, opened.engine
    glyphs = data.choose(data.render(data.find_font()), data.COUNT)
    chosen = np.random.default_rng(seed).choice(len(glyphs.captions), prompts, replace=False)
    captions = [glyphs.captions[i] for i in chosen]
    settings = opened.settings(spec, plain=plain)
    jobs = drawing.plan(captions, 1, seed, conditioner)
    # Neighbouring prompts must not share their random numbers: one seed each.
    jobs = [drawing.Job(j.index, j.prompt, seed + j.index, j.encoded) for j in jobs]
    pixels, parts = [], []
    for batch in drawing.batches(jobs, spec.engine.max_batch):
        drawn = drawing.draw(engine, batch, conditioner, settings)
        pixels.append(engine.decode_images(drawn.codes))
        parts.append(drawn.statistics)
    whole = drawing.total(parts, settings.law.length)
    return {
        "retrieval": retrieve(np.concatenate(pixels), captions, glyphs).accuracy,
        "mean_acceptance_length": whole.mean_acceptance_length,
        "acceptance_by_position": whole.acceptance_by_position,
    }


@dataclass(frozen=True)
class _EmojiQualityOptions:
    """Value of each option, by its name in click."""

    engine: Path
    prompts: int
    seed: int
    cfg_scale: float | None
    top_k: int | None
    temperature: float | None
    confidence: float | None
    draft_length: int | None
    schedule: tuple[str, ...]
    as_json: bool


@click.command()
@click.argument("engine", type=ENGINE)
@click.option(
    "--prompts",
    type=number(limits.IMAGES),
    default=200,
    show_default=True,
    help="Number of trained captions; each is drawn once.",
)
@click.option(
    "--seed",
    type=number(limits.TRAIN_SEED),
    default=1000,
    show_default=True,
    help="Random seed of the captions and the images.",
)
@click.option("--cfg-scale", type=number(limits.CFG_SCALE), help="Guidance scale; default: the spec's.")
@click.option("--top-k", type=number(limits.TOP_K), help="Top-k; default: the spec's.")
@click.option("--temperature", type=number(limits.TEMPERATURE), help="Temperature; default: the spec's.")
@click.option("--confidence", type=number(limits.PROBABILITY), help="Pacing confidence; default: the spec's.")
@click.option("--draft-length", type=number(limits.DRAFT_LENGTH), help="Draft length; default: the spec's.")
@click.option("--schedule", type=click.Choice(["plain", "none", "spec"]), multiple=True, default=["plain"])
@click.option("--json", "as_json", is_flag=True)
@gathered(_EmojiQualityOptions)
def main(given: _EmojiQualityOptions) -> None:
    """Retrieval and accept length of a built emoji ENGINE on trained captions."""
    asked = {
        "sampling.cfg_scale": given.cfg_scale,
        "sampling.top_k": given.top_k,
        "sampling.temperature": given.temperature,
    }
    asked["pacing.confidence"] = given.confidence
    sampling = {k: v for k, v in asked.items() if v is not None}
    report = {}
    try:
        for way in given.schedule:
            mode = sampling | ({"schedule.kind": "none"} if way == "none" else {})
            report[way] = measure(given.engine, given.prompts, given.seed, mode, way == "plain", given.draft_length)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from error
    if given.as_json:
        print_json(report)
        return
    for way, figures in report.items():
        for key, value in figures.items():
            shown = " ".join(f"{v:.3f}" for v in value) if isinstance(value, list) else f"{value:.3f}"
            say(f"{way:6} {key:24} {shown}")


if __name__ == "__main__":
    enter(main)
