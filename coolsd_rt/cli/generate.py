"""`coolsd-rt generate ENGINE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from coolsd_rt import limits
from coolsd_rt.cli.decoding_options import decoding_options, overrides_of
from coolsd_rt.cli.entry import gathered, overwrite_option
from coolsd_rt.cli.generate_screen import GenerateScreen, show_drawn
from coolsd_rt.cli.numbers import number, threads_option
from coolsd_rt.cli.options import reading_options
from coolsd_rt.cli.output import json_option, note, print_json
from coolsd_rt.cli.paths import ENGINE, READS_OR_STDIN, WRITES_IN
from coolsd_rt.cli.terminal.progress import progress
from coolsd_rt.cli.text_options import TextOptions, text_options
from coolsd_rt.errors import UserError
from coolsd_rt.files import read_lines
from coolsd_rt.spec import is_spec
from coolsd_rt.workflows.generate.run import GenerateConfig, generate
from coolsd_rt.workflows.opened import OpenedEngine


@dataclass(frozen=True)
class _GenerateOptions:
    """Value of each option, by its name in click."""

    engine: Path
    prompts: tuple[str, ...]
    file: Path | None
    variants: int
    seed: int
    out: Path | None
    max_tokens: int | None
    system: str | None
    raw: bool
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
@click.option("--out", type=WRITES_IN, help="Output folder of images.  [default: out]")
@text_options
@decoding_options
@reading_options
@threads_option()
@overwrite_option
@json_option
@gathered(_GenerateOptions)
def command(given: _GenerateOptions, **values: Any) -> None:
    """Draw images, or write texts, from prompts with a built engine. Images: one PNG each, and a contact sheet,
    sheet.png, for several. Texts: to standard output, as they come.

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
      coolsd-rt generate pipelines/smollm2-135m.yaml -p "Why is the sky blue?" --max-tokens 100
    """
    engine = given.engine
    if is_spec(engine):
        from coolsd_rt.cli.build import engine_of  # not needed where engines only run

        engine = engine_of(engine, given.as_json)
    everything = [*given.prompts, *(read_lines(given.file) if given.file else [])]
    asked = TextOptions(given.max_tokens, given.system, given.raw)
    if OpenedEngine.at(engine).spec.writes == "text":
        _write(engine, given, everything, overrides_of(values))
    else:
        asked.refuse(engine)
        _draw(engine, given, everything, overrides_of(values))


def _write(engine: Path, given: _GenerateOptions, prompts: list[str], overrides: dict[str, Any]) -> None:
    of_images = {
        "--out": given.out, "--features": given.features, "--text-encoder": given.text_encoder,
        "--overwrite": given.overwrite or None,
    }  # fmt: skip
    for name, value in of_images.items():
        if value is not None:
            expected, found = "an engine that draws images", f"{engine}, which writes text to standard output"
            raise UserError(name, expected=expected, found=found, fix="leave it out")
    from coolsd_rt.cli.texts import write_texts  # not needed where images are drawn
    from coolsd_rt.workflows.texts_request import WriteConfig

    request = WriteConfig(
        prompts, given.variants, given.seed, overrides, given.draft_length, given.plain, given.threads, given.draft,
        given.raw, given.system, given.max_tokens,
    )  # fmt: skip
    write_texts(engine, request, as_json=given.as_json)


def _draw(engine: Path, given: _GenerateOptions, prompts: list[str], overrides: dict[str, Any]) -> None:
    out = given.out or Path("out")
    request = GenerateConfig(
        prompts,
        out,
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
    with progress() as work:
        screen = GenerateScreen(work)
        try:
            report = generate(engine, request, screen.listener())
        except KeyboardInterrupt:
            note(f"{screen.whole} images are complete in {out}")
            raise
    if given.as_json:
        print_json(report.as_dict())
    else:
        show_drawn(report, out)
