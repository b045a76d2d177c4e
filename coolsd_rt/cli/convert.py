"""`coolsd-rt convert SOURCE --to FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import MofNCompleteColumn

from coolsd_rt.cli.output import json_option, print_json, progress, show_fields
from coolsd_rt.errors import MissingExtra
from coolsd_rt.store.atomic import human

if TYPE_CHECKING:
    from coolsd_rt.models.convert import DType


@click.command()
@click.argument("source")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="Safetensors file to write.")
@click.option("--family", help="What the checkpoint is of; default: told by its tensors' names.")
@click.option("--size", type=int, help="Pixels along one side of a picture, where a family has several.")
@click.option("--heads", type=int, help="Attention heads, where no config.json and no published size tells.")
@click.option("--prefix", type=int, help="Positions for a prompt, of families that read text tokens. Default: 256.")
@click.option(
    "--dtype", type=click.Choice(["keep", "float32", "float16", "bfloat16"]), default="keep", show_default=True,
    help="Type of the tensors written.",
)  # fmt: skip
@json_option
def command(
    source: str, to: Path, family: str | None, size: int | None, heads: int | None, prefix: int | None, dtype: DType,
    as_json: bool,
) -> None:  # fmt: skip
    """Turn a published checkpoint into a safetensors file that a spec can name.

    SOURCE is a file of torch.save or safetensors, a folder of shards, or org/name@COMMIT on the Hugging Face hub, with
    :FILE behind it for one file. Families: llamagen-c2i, llamagen-t2i, lumina-mgpt, janus-pro, eagle, vq, vqgan,
    fid-inception.

    Every tensor must be known, present and of the right shape, or nothing is written. One tensor at a time is in
    memory. This is the one verb that reads pickles, and only tensors of them.

    \b
    Example:
      coolsd-rt convert c2i_XL_384.pt --size 384 --to target.safetensors
      coolsd-rt convert ./Lumina-mGPT-7B-768 --size 768 --to target.safetensors --dtype bfloat16
      coolsd-rt convert vq_ds16_c2i.pt --to vq.safetensors
    """
    try:
        from coolsd_rt.models.convert import convert, named_options
        from coolsd_rt.models.convert_hub import locate
        from coolsd_rt.models.convert_inception import convert_inception
        from coolsd_rt.models.inception import FAMILY
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "build", "reading a checkpoint") from error
    options = named_options(size, heads, prefix)
    with progress(MofNCompleteColumn(), quiet=as_json) as bar:
        task = bar.add_task("converting", total=None)
        if family == FAMILY:
            done = convert_inception(locate(source), to)
        else:
            done = convert(
                locate(source), to, family, options, dtype, lambda at, of: bar.update(task, completed=at, total=of)
            )
    if as_json:
        print_json(done.as_dict())
        return
    config = ", ".join(f"{k} {v}" for k, v in done.config.items() if k != "family")
    show_fields(
        {
            "file": done.path,
            "family": done.family,
            "config": config,
            "tensors": f"{done.tensors} ({done.dropped} of the checkpoint's are no part of it)",
            "size": human(done.bytes),
            "seconds": f"{done.seconds:.1f}",
        }
    )
