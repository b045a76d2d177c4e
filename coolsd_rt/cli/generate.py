"""`coolsd-rt generate ENGINE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from coolsd_rt import limits
from coolsd_rt.cli.entry import gathered, overwrite_option
from coolsd_rt.cli.generate_screen import GenerateScreen, show_drawn
from coolsd_rt.cli.numbers import Numbers, number, threads_option
from coolsd_rt.cli.options import reading_options
from coolsd_rt.cli.output import json_option, note, print_json
from coolsd_rt.cli.paths import ENGINE, READS_OR_STDIN, WRITES_IN
from coolsd_rt.cli.terminal.progress import progress
from coolsd_rt.files import read_lines
from coolsd_rt.law import RESAMPLERS, RULES, SCHEDULES
from coolsd_rt.spec import is_spec
from coolsd_rt.workflows.generate.run import DRAFTS, GenerateConfig, generate

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
    "pacing": "pacing.kind",
    "confidence": "pacing.confidence",
    "draft_confidence": "pacing.draft_confidence",
    "cfg_scale": "sampling.cfg_scale",
    "cfg_interval": "sampling.cfg_interval",
    "temperature": "sampling.temperature",
    "top_k": "sampling.top_k",
    "top_p": "sampling.top_p",
}
"""Options to the run-time keys of the spec that they replace. Their values are checked by the spec's own models."""


@dataclass(frozen=True)
class _GenerateOptions:
    """Value of each option, by its name in click."""

    engine: Path
    prompts: tuple[str, ...]
    file: Path | None
    variants: int
    seed: int
    out: Path
    draft_length: int | None
    plain: bool
    draft: str | None
    features: Path | None
    text_encoder: Path | None
    threads: int | None
    overwrite: bool
    as_json: bool


@click.command()
@click.argument("engine", type=ENGINE)
@click.option("-p", "--prompt", "prompts", multiple=True, metavar="TEXT", help="Prompt to draw. Repeatable.")
@click.option("--prompts", "file", type=READS_OR_STDIN, help="File of prompts, one per line; - reads standard input.")
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
    help="Random seed. Image i of each prompt, from 0, uses seed + i (modulo 2^64).",
)
@click.option("--out", type=WRITES_IN, default=Path("out"), show_default=True, help="Output folder.")
@click.option(
    "--delta",
    type=number(limits.OMEGA),
    help="Relaxation budget: the mean of omega before the floor (schedules exponential, linear and uniform). The paper "
    "uses 1.1.",
)
@click.option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    help="Relaxation schedule; none is lossless with the rule ratio and the resampler optimal, waterfill or residual.",
)
@click.option("--nu", type=number(limits.DECAY), help="Decay per draft position (schedules exponential and excess).")
@click.option("--beta", type=number(limits.OMEGA), help="First omega minus 1 (schedule excess).")
@click.option(
    "--floor",
    type=number(limits.OMEGA),
    help="Lower bound of omega at every position; 0 sets no bound (schedules exponential, linear, uniform and custom).",
)
@click.option(
    "--values",
    metavar="W,W,...",
    type=Numbers(limits.OMEGA),
    help="All omegas, one per draft position (schedule custom).",
)
@click.option(
    "--resampler", type=click.Choice(RESAMPLERS), help="Distribution that a token is drawn from after a rejection."
)
@click.option(
    "--rule",
    type=click.Choice([r for r in RULES if r != "synthetic"]),
    help="Acceptance rule of draft tokens. lantern (needs --bound and --neighbours) and lantern_pp (needs --factor and "
    "--neighbours) relax by themselves: they replace the spec's schedule by none and refuse another one.",
)
@click.option(
    "--bound",
    type=number(limits.PROBABILITY),
    help="Maximum probability that a token borrows from its neighbours (rule lantern).",
)
@click.option(
    "--factor",
    type=number(limits.FACTOR),
    help="Maximum acceptance mass of a token, as a multiple of its probability (rule lantern_pp).",
)
@click.option(
    "--neighbours",
    type=number(limits.NEIGHBOURS),
    help="Number of nearest codes that a token borrows from (lantern rules).",
)
@click.option(
    "--draft-length",
    type=number(limits.DRAFT_LENGTH, "use --plain to decode without a draft"),
    help="Tokens drafted per round, at most under --pacing auto; a length other than the built one runs each draft "
    "step separately.",
)
@click.option(
    "--plain",
    is_flag=True,
    help="Decode with the target alone, one token per step; refuses options of drafts, schedule, rule, resampler and "
    "pacing.",
)
@click.option(
    "--pacing",
    type=click.Choice(["auto", "manual"]),
    help="How much a round drafts: auto, what is fastest on this machine with this number of images at once, up to the "
    "draft length (tried once and recorded); manual, the draft length in every round, up to the two thresholds.",
)
@click.option(
    "--confidence",
    type=number(limits.PROBABILITY),
    help="Skip drafting unless the target's top probability for the previous token is at least this; 0 always drafts. "
    "Selects --pacing manual.",
)
@click.option(
    "--draft-confidence",
    type=number(limits.PROBABILITY),
    help="Stop drafting before a token whose top draft probability is below this; 0 never stops. "
    "Selects --pacing manual.",
)
@click.option(
    "--draft",
    type=click.Choice(DRAFTS),
    help="Draft from the target's distributions of the previous round (Jacobi decoding) instead of the draft model; "
    "jacobi-coupled keeps drafts where the old and the new distribution agree. Drafts 15 tokens unless --draft-length "
    "is given, and drops the spec's thresholds.",
)
@click.option("--cfg-scale", type=number(limits.CFG_SCALE), help="Classifier-free guidance scale; 1 disables guidance.")
@click.option(
    "--cfg-interval", type=number(limits.CFG_INTERVAL), help="Last decode step with guidance; -1 guides every step."
)
@click.option("--temperature", type=number(limits.TEMPERATURE), help="Sampling temperature; divides the logits.")
@click.option("--top-k", type=number(limits.TOP_K), help="Keep the k most probable tokens; 0 keeps all.")
@click.option(
    "--top-p",
    type=number(limits.TOP_P),
    help="Keep the smallest set of most probable tokens with this total probability; 1 keeps all.",
)
@reading_options
@threads_option()
@overwrite_option
@json_option
@gathered(_GenerateOptions)
def command(given: _GenerateOptions, **values: Any) -> None:
    """Draw images from prompts with a built engine: one PNG per image, and a contact sheet, sheet.png, for several.

    ENGINE is engines/NAME (its current build), the folder of one fingerprint, or a spec, which is built into engines/
    first if necessary. An option that is not given keeps the value of the engine's spec. Each PNG stores its prompt,
    seed, engine, spec and law in the text chunk "coolsd-rt".

    Without --overwrite, only a damaged image of the same request and a sheet.png of coolsd-rt are replaced. An image
    that OUT already contains (same engine, prompt, seed and settings) is skipped, so that the same command resumes
    after an interruption. If any other file has the name of an image, nothing is drawn and the exit code is 2: give
    another --out, or --overwrite, which draws and replaces all images. sheet.png shows the images of the last run that
    wrote a sheet; a sheet.png that coolsd-rt did not write is refused as well. A run of one image writes no sheet, and
    removes an older one if it replaced an image on it.

    \b
    Example:
      coolsd-rt generate engines/emoji -p "red apple" -p "yellow star" -n 4
      coolsd-rt generate pipelines/emoji.yaml -p "red apple"
    """
    everything = [*given.prompts, *(read_lines(given.file) if given.file else [])]
    overrides = {KEYS[name]: value for name, value in values.items() if value is not None}
    request = GenerateConfig(
        everything,
        given.out,
        given.variants,
        given.seed,
        overrides,
        given.draft_length,
        given.plain,
        given.threads,
        given.draft,
        given.features,
        given.text_encoder,
        given.overwrite,
    )
    engine = given.engine
    if is_spec(engine):
        from coolsd_rt.cli.build import engine_of  # not needed where engines only run

        engine = engine_of(engine, given.as_json)
    with progress() as work:
        screen = GenerateScreen(work)
        try:
            report = generate(engine, request, screen.listener())
        except KeyboardInterrupt:
            note(f"{screen.whole} images are complete in {given.out}")
            raise
    if given.as_json:
        print_json(report.as_dict())
    else:
        show_drawn(report, given.out)
