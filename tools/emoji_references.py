"""The demo's glyphs as reference images of a sweep: `python tools/emoji_references.py out/emoji-references`.

Writes a PNG a glyph, named by its caption, and references.json with the shifts and flips that training showed it under.
Needs the `train` and `measure` extras and the font.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# The path above makes the checkout importable.
from coolsd_rt.cli.entry import enter, overwrite_option  # noqa: E402
from coolsd_rt.cli.paths import WRITES_IN  # noqa: E402
from coolsd_rt.cli.terminal import say  # noqa: E402
from coolsd_rt.metrics.references import INDEX, Entry, Index, by_caption  # noqa: E402
from coolsd_rt.store.outputs import check_output, has_bytes, write_output  # noqa: E402
from coolsd_rt.workflows.png import (  # noqa: E402
    png_bytes,
    slug,
)
from tools.emoji import data  # noqa: E402
from tools.emoji.quality import references  # noqa: E402


def write(glyphs: data.Glyphs, out: Path, *, overwrite: bool = False) -> int:
    """Write the folder; the index last, so that a folder with one is whole. Returns how many images it has.

    Files that are the same already stay. Raises UserError: another file has a name and `overwrite` is off; nothing is
    written then.
    """
    found = references(glyphs)
    by_caption(found)  # no two captions may share a file name
    files = {f"{slug(caption)}.png": png_bytes(p) for p, caption in zip(found.images, found.captions, strict=True)}
    entries = [
        Entry(file=name, caption=caption, flip=bool(flip))
        for name, caption, flip in zip(files, found.captions, found.flips, strict=True)
    ]
    files[INDEX] = (Index(shift=found.shift, images=entries).model_dump_json(indent=1) + "\n").encode()
    for name, content in files.items():
        if not has_bytes(out / name, content):
            check_output(out / name, "OUT", overwrite=overwrite)
    for name, content in files.items():
        write_output(out / name, content, overwrite=overwrite)
    return len(entries)


@click.command()
@click.argument("out", type=WRITES_IN)
@click.option("--font", help="Path of NotoColorEmoji.ttf.")
@overwrite_option
def main(out: Path, font: str | None, overwrite: bool) -> None:
    """Write the glyphs that the demo was trained on into the folder OUT."""
    try:
        glyphs = data.choose(data.render(data.find_font(font)), data.COUNT)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from error
    say(f"{write(glyphs, out, overwrite=overwrite)} images in {out}")


if __name__ == "__main__":
    enter(main)
