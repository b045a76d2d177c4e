"""`coolsd-rt precompute SPEC`."""

from __future__ import annotations

from pathlib import Path

import click

from coolsd_rt.cli.output import json_option, note, print_json, say
from coolsd_rt.cli.paths import FOLDER, READS_OR_STDIN, SPEC, WRITES
from coolsd_rt.files import read_lines
from coolsd_rt.spec import load_spec
from coolsd_rt.workflows.precompute import precompute


@click.command()
@click.argument("spec", type=SPEC)
@click.option("-p", "--prompt", "prompts", multiple=True, metavar="TEXT", help="Prompt to encode. Repeatable.")
@click.option("--prompts", "file", type=READS_OR_STDIN, help="File of prompts, one per line; - reads standard input.")
@click.option(
    "--out",
    type=WRITES,
    default=Path("features.safetensors"),
    show_default=True,
    help="Safetensors file of features to write.",
)
@click.option("--text-encoder", "encoder", type=FOLDER, help="Folder of the text encoder; replaces the spec's encoder.")
@click.option("--device", default="cpu", show_default=True, help="Torch device that runs the text encoder.")
@json_option
def command(
    spec: Path, prompts: tuple[str, ...], file: Path | None, out: Path, encoder: Path | None, device: str, as_json: bool
) -> None:
    """Precompute the text features of prompts, so that an engine can draw them without a text encoder.

    Captions that OUT already contains are kept and not computed again.

    \b
    Example:
      coolsd-rt precompute SPEC.yaml --prompts prompts.txt --out features.safetensors
    """
    texts = [*prompts, *(read_lines(file) if file is not None else ())]
    loaded = load_spec(spec, check_files=False)
    made = precompute(loaded, texts, out, encoder=encoder, device=device, on_caption=note)
    if as_json:
        print_json({"file": str(out), "captions": len(made.captions), "encoder": made.encoder})
    else:
        say(f"{out}: {len(made.captions)} captions")
