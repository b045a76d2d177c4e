"""The demo's glyphs as reference pictures of a sweep: `python tools/emoji_references.py out/emoji-references`.

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
from coolsd_rt.measure.folder import save  # noqa: E402
from coolsd_rt.measure.quality_folder import INDEX, Entry, Index, by_caption  # noqa: E402
from coolsd_rt.terminal import say  # noqa: E402
from coolsd_rt.workflows.entry import enter  # noqa: E402
from coolsd_rt.workflows.paths import WRITES_IN  # noqa: E402
from coolsd_rt.workflows.pictures import slug, write_png  # noqa: E402
from tools.emoji import data  # noqa: E402
from tools.emoji.quality import references  # noqa: E402


def write(glyphs: data.Glyphs, out: Path) -> int:
    """Write the folder; the index last, so that a folder with one is whole. Returns how many pictures it has."""
    found = references(glyphs)
    by_caption(found)  # no two captions may share a file name
    entries = []
    for picture, caption, flip in zip(found.pictures, found.captions, found.flips, strict=True):
        name = f"{slug(caption)}.png"
        write_png(out, name, picture)
        entries.append(Entry(file=name, caption=caption, flip=bool(flip)))
    save(out / INDEX, (Index(shift=found.shift, pictures=entries).model_dump_json(indent=1) + "\n").encode())
    return len(entries)


@click.command()
@click.argument("out", type=WRITES_IN)
@click.option("--font", help="Path of NotoColorEmoji.ttf.")
def main(out: Path, font: str | None) -> None:
    """Write the glyphs that the demo was trained on into the folder OUT."""
    try:
        glyphs = data.choose(data.render(data.find_font(font)), data.COUNT)
        say(f"{write(glyphs, out)} pictures in {out}")
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    enter(main)
