"""Reads a folder of images with captions, for `train-draft --data DIR`.

    metadata.jsonl    one JSON object per line, {"file_name": "cat.png", "text": "a cat"}, as in the hub's image folders
    cat.png, cat.txt  without metadata.jsonl: the caption of each image is in a text file of the same name

Knows files. Does not know tokenizers or the meaning of a caption.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from coolsd_rt.errors import UserError
from coolsd_rt.files import MIB, is_clutter, open_plain, parse_json, read_text, why_unusable
from coolsd_rt.limits import RESULT_BYTES
from coolsd_rt.store.hashing import sha256_file

INDEX = "metadata.jsonl"
KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_FIX = f"put a {INDEX} there, or a caption in NAME.txt beside each NAME.png"


@dataclass(frozen=True)
class CaptionedImage:
    """An image file and its caption."""

    path: Path
    caption: str


def read_folder(folder: Path) -> list[CaptionedImage]:
    """List every image of a folder, by name. Opens no image.

    Raises UserError if there is no folder or no image, an image has no caption, or a line of the index is invalid.
    """
    if (found := why_unusable(folder) or "a file") != "a folder":
        raise UserError(str(folder), expected="a folder of images with captions, or self:N", found=found, fix=_FIX)
    index = folder / INDEX
    images = _beside(folder) if why_unusable(index) == "nothing" else _indexed(index)
    if not images:
        raise UserError(str(folder), expected="images with captions", found="none", fix=_FIX)
    return sorted(images, key=lambda p: p.path.name)


def _beside(folder: Path) -> list[CaptionedImage]:
    images = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in KINDS or is_clutter(path.name):
            continue
        text = path.with_suffix(".txt")
        caption = " ".join(read_text(text, f"the caption of {path.name}", MIB, fix=_FIX).split())
        if not caption:
            raise UserError(str(text), expected=f"the caption of {path.name}", found="an empty file", fix=_FIX)
        images.append(CaptionedImage(path, caption))
    return images


def _indexed(index: Path) -> list[CaptionedImage]:
    images = []
    expected = '{"file_name": "cat.png", "text": "a cat"}'
    lines = read_text(index, "a text file in UTF-8", RESULT_BYTES).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
            name, text = entry["file_name"], " ".join(entry["text"].split())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{index}:{number}", expected=expected, found=line[:60]) from error
        path = index.parent / str(name)
        if not text or why_unusable(path) or not path.resolve().is_relative_to(index.parent.resolve()):
            found = "no caption" if not text else f"no such file: {name}"
            raise UserError(f"{index}:{number}", expected="an image in this folder and its caption", found=found)
        images.append(CaptionedImage(path, text))
    return images


def digest(images: list[CaptionedImage]) -> list[str]:
    """Return the SHA-256 of each file, in order: what the codes of these images depend on."""
    return [sha256_file(image.path) for image in images]


def load_pixels(images: list[CaptionedImage], side: int) -> Tensor:
    """Return pixels float32 [n, 3, side, side] in [-1, 1]: the central square, resized; transparent areas become white.

    Raises UserError if a file is not an image, or too large to open safely.
    """
    out = []
    for image in images:
        try:
            with open_plain(image.path, "an image") as file, Image.open(file) as opened:
                rgba = opened.convert("RGBA")
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(str(image.path), expected="an image", found=str(error), fix="remove it") from error
        rgb = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        size = min(rgb.size)
        left, top = (rgb.width - size) // 2, (rgb.height - size) // 2
        square = rgb.crop((left, top, left + size, top + size))
        if size != side:
            square = square.resize((side, side), Image.Resampling.LANCZOS)
        out.append(np.asarray(square, np.float32) / 127.5 - 1)
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).contiguous()
