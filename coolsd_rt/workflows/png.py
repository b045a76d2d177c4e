"""Writes images to PNG files: file names, provenance inside the file, the contact sheet.

Files are written atomically. Pillow is imported where a file is read or written: names are assigned before an image is
drawn, files are made after. Knows PNG and file names. Does not know engines or how an image was drawn.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coolsd_rt import __version__
from coolsd_rt.arrays import Pixels
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import open_plain, parse_json
from coolsd_rt.store.atomic import disk_errors, write_atomic

if TYPE_CHECKING:
    from PIL import ImageDraw

CHUNK = "coolsd-rt"  # keyword of the text chunk with the provenance, as JSON
SHEET = "sheet.png"
SHEET_LIMIT = 1024  # images on one sheet: more would be too small to see, and the canvas would not fit in memory
SOFTWARE = "Software"  # keyword of the text chunk with the package and its version
MOST_PIXELS = 1 << 26  # limit for an image that is read back
# Exceptions that Pillow raises for a broken file.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error)
_END = b"\xaeB`\x82"  # checksum of the last chunk, IEND
_SLUG_BYTES = 80
_CELL = 128  # pixels: smaller images are enlarged by an integer factor to about this size
_CAPTION = 16
_GAP = 8


def slug(prompt: str) -> str:
    """Return a prompt as part of a file name: its words in lower case, joined by "-", at most 80 bytes of UTF-8."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", prompt).lower())
    text = "-".join(words).encode()[:_SLUG_BYTES].decode(errors="ignore").rstrip("-")
    return text or "image"


def file_name(index: int, count: int, prompt: str) -> str:
    """Return a name like `000-red-apple.png`. The index has at least three digits, and more if `count` needs more."""
    digits = max(3, len(str(count - 1)))
    return f"{index:0{digits}d}-{slug(prompt)}.png"


def png_bytes(pixels: Pixels, provenance: Mapping[str, Any] | None = None) -> bytes:
    """Return RGB pixels as a PNG. `provenance` (JSON data) becomes an ASCII tEXt chunk that any reader shows."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text(SOFTWARE, f"coolsd-rt {__version__}")
    if provenance is not None:
        info.add_text(CHUNK, json.dumps(provenance, allow_nan=False))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def read_provenance(path: Path) -> dict[str, Any] | None:
    """Return a file's provenance; None if this package did not write the file. Raises UserError: not a plain file."""
    from PIL import Image

    with open_plain(path, "an image") as file, Image.open(file) as image:
        text = image.info.get(CHUNK)
    data = parse_json(text) if isinstance(text, str) else None
    return data if isinstance(data, dict) else None


def text_chunks(path: Path) -> dict[str, str]:
    """Return the text chunks before a PNG's pixels; empty if the file is not a PNG. Decodes no pixels."""
    from PIL import PngImagePlugin

    try:
        with open_plain(path, "a PNG file") as file:
            info = PngImagePlugin.PngImageFile(file).info  # not Image.open, which objects to a large sheet
    except (*_BROKEN, CoolsdError):
        return {}
    return {str(key): str(value) for key, value in info.items() if isinstance(value, str)}


def read_pixels(path: Path) -> Pixels:
    """Read the pixels of a PNG and check every checksum. Raises UserError if it is no PNG, damaged or too large."""
    from PIL import PngImagePlugin

    check_whole(path)
    with open_plain(path, "a PNG file") as file:
        try:
            image = PngImagePlugin.PngImageFile(file)
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"one of {image.width} x {image.height} pixels")
            return np.asarray(image.convert("RGB"))
        except _BROKEN as e:
            raise UserError(str(path), expected="a whole PNG file", found=str(e) or "a damaged one") from e


def check_whole(path: Path) -> None:
    """Check all checksums of a PNG without decoding it. Raises UserError if it is no PNG, cut off or damaged."""
    from PIL import PngImagePlugin

    with open_plain(path, "a PNG file") as file:
        try:
            PngImagePlugin.PngImageFile(file).verify()
            if file.read(4) != _END:  # verify stops before the last checksum
                raise ValueError("one that is cut at its end")
        except _BROKEN as e:
            raise UserError(str(path), expected="a whole PNG file", found=str(e) or "a damaged one") from e


def write_png(
    folder: Path, name: str, pixels: Pixels, provenance: Mapping[str, Any] | None = None, *, replace: bool = True
) -> Path:
    """Write one PNG atomically. replace: whether an existing file may be replaced.

    Raises NameTaken if the file exists and `replace` is off, CoolsdError if the disk is full or the folder is not
    writable.
    """
    path = folder / name
    data = png_bytes(pixels, provenance)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data, replace=replace)
    return path


def sheet(images: Sequence[Pixels], captions: Sequence[str], columns: int = 0) -> Pixels:
    """Draw images of one size with captions on a white page, uint8 [H, W, 3]. columns 0: about square."""
    from PIL import Image, ImageDraw, ImageFont

    side = images[0].shape[0]
    cell = side * max(1, _CELL // side)
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    step_x, step_y = cell + _GAP, cell + _CAPTION + _GAP
    page = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for k, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = _GAP + k % columns * step_x, _GAP + k // columns * step_y
        image = Image.fromarray(pixels).resize((cell, cell), Image.Resampling.LANCZOS)
        page.paste(image, (x, y))
        pen.text((x, y + cell + 1), _fit(pen, font, caption, cell), fill="#444", font=font)
    return np.asarray(page)


def _fit(pen: ImageDraw.ImageDraw, font: Any, text: str, width: int) -> str:
    text = " ".join(text.split())
    if pen.textlength(text, font=font) <= width:
        return text
    while text and pen.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text.rstrip() + "…"
