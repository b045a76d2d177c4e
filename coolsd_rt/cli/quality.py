"""`coolsd-rt quality ENGINE`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coolsd_rt import limits
from coolsd_rt.cli import generate
from coolsd_rt.cli.decoding_options import KEYS
from coolsd_rt.cli.entry import gathered
from coolsd_rt.cli.main import Interrupted
from coolsd_rt.cli.numbers import number
from coolsd_rt.cli.output import json_option, note, print_json, say, show_fields, show_table
from coolsd_rt.cli.paths import ENGINE, FOLDER, READS, READS_OR_STDIN, WRITES_IN
from coolsd_rt.cli.terminal.progress import Work, progress
from coolsd_rt.workflows.generate.run import GenerateConfig

if TYPE_CHECKING:  # needs torch, which --help must not
    from coolsd_rt.quality.draw import QualityCallbacks
    from coolsd_rt.quality.run import QualityReport

_OWN = ("prompts", "variants", "out", "seed", "overwrite")
_TAKEN = {*KEYS, *(field.name for field in dataclasses.fields(GenerateConfig))} - set(_OWN)
_SHARED = [p for p in generate.command.params if isinstance(p, click.Option) and p.name in _TAKEN]
"""What `generate` draws with, and so does this verb: one list of options, with one help text each."""


class _QualityScreen:
    """Progress in images, one stage after the other."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.stage, self.done, self.of = "", 0, 0

    def listener(self) -> QualityCallbacks:
        from coolsd_rt.quality.draw import QualityCallbacks

        return QualityCallbacks(lambda line: note(f"warning: {line}"), self._start, self._step)

    def _start(self, stage: str, images: int) -> None:
        self.stage, self.done, self.of = stage, 0, images
        self._work.start(stage, images, "images")

    def _step(self, images: int) -> None:
        self.done += images
        self._work.update(self.done)

    @property
    def interrupted(self) -> str:
        return f"interrupted: {self.stage}: {self.done} of {self.of} images are done" if self.stage else "interrupted"


def _show(report: QualityReport, out: Path) -> None:
    from coolsd_rt.quality.run import settings_line

    rows = []
    for row in report.rows:
        arrow = "lower is better" if row.kind.lower_is_better else ""
        value = "not measured" if row.figure is None else f"{row.figure.value:.4g}"
        interval = (
            "" if row.figure is None or row.figure.low is None else f"{row.figure.low:.4g} to {row.figure.high:.4g}"
        )
        how = "" if row.figure is None else row.figure.interval
        rows.append((row.kind.label, value, interval, how, row.images or "", arrow))
    show_table(("measure", "value", "interval", "of what kind", "images", ""), rows)
    for row in report.rows:
        if row.figure is None:
            say(f"{row.kind.label}: {row.how}")
    show_fields(
        {
            "engine": f"{report.engine['name']} {report.engine['fingerprint'][:12]}",
            "settings": settings_line(report),
            "accept length": report.cost.accept_length,
            "seconds an image": f"{report.cost.seconds:.3g} (drawn beside other work; no benchmark)",
            "loop": report.cost.loop,
            "FID is": report.as_dict()["fid_convention"],
            "figures": out,
        }
    )


@dataclass(frozen=True)
class _QualityOptions:
    """Value of each option, by its name in click."""

    engine: Path
    prompts: Path
    reference: Path | None
    out: Path
    inception: Path | None
    clip: Path | None
    image_reward: Path | None
    hpsv2: Path | None
    crop: bool
    limit: int | None
    reference_cache: Path | None
    as_json: bool


@click.command()
@click.argument("engine", type=ENGINE)
@click.option(
    "--prompts", type=READS_OR_STDIN, required=True, help="JSON file of captions by id, or COCO's captions file."
)
@click.option("--reference", type=FOLDER, help="Folder of real images, named by the same ids.")
@click.option("--out", type=WRITES_IN, required=True, help="Output folder of the run: images and figures.")
@click.option(
    "--seed",
    type=number(limits.SEED),
    default=0,
    show_default=True,
    help="Random seed. Each image uses seed + its id (modulo 2^64).",
)
@click.option("--inception", type=READS, help="Inception weights for FID, a safetensors file made by `convert`.")
@click.option("--clip", type=FOLDER, help="Folder of the CLIP model for the CLIP score.")
@click.option("--image-reward", type=FOLDER, help="Folder of the two ImageReward files.")
@click.option("--hpsv2", type=READS, help="HPSv2 weights file.")
@click.option("--crop", is_flag=True, help="Crop each reference to its central square first. clean-fid does not crop.")
@click.option(
    "--limit", type=number(limits.IMAGES), help="Maximum number of ids: only the first ones are drawn and measured."
)
@click.option(
    "--reference-cache",
    type=WRITES_IN,
    help="Folder that caches reference features for other runs; default: in --out.",
)
@json_option
@gathered(_QualityOptions)
def command(given: _QualityOptions, **drawing: Any) -> None:
    """Draw the images of many captions, and compute FID, CLIP score, ImageReward and HPSv2.

    Captions, images and references are paired by id, never by order; image ID uses the seed --seed + ID. After an
    interruption the same command resumes. A metric whose files are not given is reported as not measured, with a note
    on how to get the files; nothing is downloaded. The CLIP score is torchmetrics' score, 100 times the cosine.
    docs/reproduce.md contains the paper's table.

    \b
    Example:
      coolsd-rt quality engines/llamagen --prompts captions_val2014.json --reference val2014 --out out/cool-1.1 \\
        --delta 1.1 --inception inception.safetensors --clip clip-vit-base-patch32
    """
    from coolsd_rt.quality.run import QualityMeasures, quality  # needs torch

    request = _request(drawing)
    wanted = QualityMeasures(
        given.reference, given.inception, given.clip, given.image_reward, given.hpsv2, given.crop, given.reference_cache
    )
    with progress(quiet=given.as_json) as work:
        screen = _QualityScreen(work)
        try:
            report = quality(given.engine, given.prompts, given.out, request, wanted, given.limit, screen.listener())
        except KeyboardInterrupt as e:
            after = f"; run the same command to resume in {given.out}" if screen.stage else ""
            raise Interrupted(screen.interrupted + after) from e
    if given.as_json:
        print_json(report.as_dict())
    else:
        _show(report, given.out)


command.params += _SHARED


def _request(values: dict[str, Any]) -> GenerateConfig:
    """The options of `generate` as its request; those that are no run-time key are fields of it by their own names."""
    keys = KEYS
    overrides = {keys[name]: value for name, value in values.items() if name in keys and value is not None}
    return GenerateConfig(
        (), overrides=overrides, **{name: value for name, value in values.items() if name not in keys}
    )
