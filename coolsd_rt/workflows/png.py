"""Pixels to files: names in the prompts' order, PNGs with their provenance inside, the contact sheet.

Knows PNG and file names. Does not know engines or how an image was drawn. A file appears whole under its name or not
at all.
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
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from coolsd_rt import __version__
from coolsd_rt.arrays import Pixels
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import open_plain, parse_json
from coolsd_rt.store.atomic import disk_errors, write_atomic

CHUNK = "coolsd-rt"  # keyword of the text chunk that holds the provenance, as JSON
SHEET = "sheet.png"
SHEET_LIMIT = 1024  # images on one sheet: more could not be told apart, and the canvas would not fit in memory
SOFTWARE = "Software"  # keyword of the text chunk that names the package and its version
MOST_PIXELS = 1 << 26  # of an image that is read back
# What Pillow raises for a broken file.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error)
_END = b"\xaeB`\x82"  # checksum of the last chunk, IEND
_SLUG_BYTES = 80
_CELL = 128  # a smaller image is enlarged by a whole factor to about this
_CAPTION = 16
_GAP = 8


def slug(prompt: str) -> str:
    """A prompt as a part of a file name: its words in lower case, joined by -, at most 80 bytes of UTF-8."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", prompt).lower())
    text = "-".join(words).encode()[:_SLUG_BYTES].decode(errors="ignore").rstrip("-")
    return text or "image"


def file_name(index: int, count: int, prompt: str) -> str:
    """`000-red-apple.png`: the index with at least three digits, as many as the last of `count` needs."""
    digits = max(3, len(str(count - 1)))
    return f"{index:0{digits}d}-{slug(prompt)}.png"


def png_bytes(pixels: Pixels, provenance: Mapping[str, Any] | None = None) -> bytes:
    """A PNG of RGB pixels. `provenance` (JSON data) becomes a tEXt chunk: ASCII, so any reader shows it."""
    info = PngImagePlugin.PngInfo()
    info.add_text(SOFTWARE, f"coolsd-rt {__version__}")
    if provenance is not None:
        info.add_text(CHUNK, json.dumps(provenance, allow_nan=False))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def read_provenance(path: Path) -> dict[str, Any] | None:
    """What `png_bytes` put into a file; None if it is not from here. Raises UserError: not a plain file."""
    with open_plain(path, "an image") as file, Image.open(file) as image:
        text = image.info.get(CHUNK)
    data = parse_json(text) if isinstance(text, str) else None
    return data if isinstance(data, dict) else None


def text_chunks(path: Path) -> dict[str, str]:
    """The text chunks that stand before a PNG's pixels; none if the file is no PNG. Decodes no pixel."""
    try:
        with open_plain(path, "a PNG file") as file:
            info = PngImagePlugin.PngImageFile(file).info  # not Image.open, which objects to a large sheet
    except (*_BROKEN, CoolsdError):
        return {}
    return {str(key): str(value) for key, value in info.items() if isinstance(value, str)}


def read_pixels(path: Path) -> Pixels:
    """The pixels of a PNG, every checksum checked. Raises UserError: no PNG, a cut or damaged one, one too large."""
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
    """Check a PNG's checksums to its end, without decoding it. Raises UserError: no PNG, a cut or damaged one."""
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
    """Write one PNG, whole or not at all. replace: whether it may take the place of a file.

    Raises NameTaken: there is one and `replace` is off. CoolsdError: no space, a folder not writable.
    """
    path = folder / name
    data = png_bytes(pixels, provenance)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data, replace=replace)
    return path


def sheet(images: Sequence[Pixels], captions: Sequence[str], columns: int = 0) -> Pixels:
    """All images of one size on one white page with captions, uint8 [H, W, 3]. columns 0: about square."""
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
