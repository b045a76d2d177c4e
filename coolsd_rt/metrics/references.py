"""Reference pictures from a folder of PNG files, with their captions.

    references.json       optional: {"version": 1, "shift": 1, "pictures": [{"file", "caption", "flip"}, ...]}
    red-apple.png, ...    without it: named by their captions, as `generate` names its own (000-red-apple.png)

Knows PNG files and names. Does not know what they are compared with. Pictures of synthetic acceptance are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from coolsd_rt.errors import UserError
from coolsd_rt.files import is_clutter, open_plain, why_unusable
from coolsd_rt.limits import RESULT_BYTES
from coolsd_rt.store.hashing import sha256_file, sha256_json
from coolsd_rt.store.strict import Strict, pattern, read_model
from coolsd_rt.workflows.png import SHEET, read_provenance, slug

INDEX = "references.json"
_FileName = Annotated[str, Field(pattern=pattern(r"^[^/\\\x00]{1,255}$", "a file's name, without a folder"))]


class Entry(Strict):
    """One picture. flip: whether its mirror image is the same thing."""

    file: _FileName
    caption: str
    flip: bool = False


class Index(Strict):
    """The contents of references.json. shift: pixels, each way, that a picture may be moved by and still match."""

    version: Literal[1] = 1
    shift: int = Field(default=0, ge=0, le=16)
    pictures: Annotated[list[Entry], Field(min_length=1)]


@dataclass(frozen=True)
class References:
    """Pictures uint8 [R, F, F, 3], a caption and a flip each; `digest` changes with any byte of the files."""

    pictures: NDArray[np.uint8]
    captions: tuple[str, ...]
    flips: NDArray[np.bool_]
    shift: int
    digest: str

    @property
    def side(self) -> int:
        return int(self.pictures.shape[1])


def read_folder(folder: Path) -> References:
    """All pictures of a folder. Raises UserError: none, not PNG, of several sizes, of synthetic acceptance."""
    index = _index(folder)
    pictures = [_picture(folder / entry.file) for entry in index.pictures]
    sides = {picture.shape for picture in pictures}
    if len(sides) > 1 or len({n for shape in sides for n in shape[:2]}) > 1:
        found = " and ".join(sorted(f"{w} x {h}" for h, w, _ in sides)[:3])
        raise UserError(str(folder), expected="square pictures of one size", found=found)
    hashes = [(entry.model_dump(), sha256_file(folder / entry.file)) for entry in index.pictures]
    return References(
        np.stack(pictures),
        tuple(entry.caption for entry in index.pictures),
        np.array([entry.flip for entry in index.pictures]),
        index.shift,
        sha256_json([index.shift, hashes]),
    )


def _index(folder: Path) -> Index:
    path = folder / INDEX
    if why_unusable(path) != "nothing":
        return read_model(path, Index, "an index of reference pictures", RESULT_BYTES, error=UserError)
    names = sorted(p.name for p in folder.glob("*.png") if p.name != SHEET and not is_clutter(p.name))
    if not names:
        raise UserError(str(folder), expected="PNG files", found="none")
    return Index(pictures=[Entry(file=name, caption=_caption(name)) for name in names])


def _caption(name: str) -> str:
    return re.sub(r"^\d{3,}-", "", name.removesuffix(".png"))


def _picture(path: Path) -> NDArray[np.uint8]:
    if found := why_unusable(path):
        expected = "the picture that the index names" if found == "nothing" else "a PNG file"
        raise UserError(str(path), expected=expected, found=found)
    try:
        provenance = read_provenance(path)
        with open_plain(path, "a PNG file") as file, Image.open(file, formats=["PNG"]) as image:
            rgba = image.convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise UserError(str(path), expected="a PNG file", found=str(e)) from e
    law = provenance.get("law") if isinstance(provenance, dict) else None
    if isinstance(law, dict) and law.get("rule") == "synthetic":
        found = "one drawn under synthetic acceptance"
        raise UserError(str(path), expected="a picture of the model", found=found, fix="draw it under another rule")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))


def by_caption(references: References) -> dict[str, int]:
    """Captions, as file names write them, to indices. Raises UserError: a caption twice."""
    out: dict[str, int] = {}
    for i, caption in enumerate(references.captions):
        if slug(caption) in out:
            raise UserError("reference pictures", expected="one of each caption", found=f"two of {caption!r}")
        out[slug(caption)] = i
    return out
