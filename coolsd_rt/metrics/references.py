"""Reads reference images with their captions from a folder of PNG files.

    references.json       optional: {"version": 1, "shift": 1, "images": [{"file", "caption", "flip"}, ...]}
    red-apple.png, ...    without it: captions from file names, as `generate` names files (000-red-apple.png)

Knows PNG files and names. Does not know what the images are compared with. Refuses images drawn with synthetic
acceptance.
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
    """One image of references.json. flip: whether the mirrored image also matches."""

    file: _FileName
    caption: str
    flip: bool = False


class Index(Strict):
    """The contents of references.json.

    shift: pixels, in each direction, by which an image may be shifted and still match.
    """

    version: Literal[1] = 1
    shift: int = Field(default=0, ge=0, le=16)
    images: Annotated[list[Entry], Field(min_length=1)]


@dataclass(frozen=True)
class References:
    """Images uint8 [R, F, F, 3] with a caption and a flip flag each; `digest` changes with any byte of the files."""

    images: NDArray[np.uint8]
    captions: tuple[str, ...]
    flips: NDArray[np.bool_]
    shift: int
    digest: str

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return int(self.images.shape[1])


def read_folder(folder: Path) -> References:
    """Read all images of a folder.

    Raises UserError: none, not PNG, of several sizes, or drawn with synthetic acceptance.
    """
    index = _index(folder)
    images = [_image(folder / entry.file) for entry in index.images]
    sides = {image.shape for image in images}
    if len(sides) > 1 or len({n for shape in sides for n in shape[:2]}) > 1:
        found = " and ".join(sorted(f"{w} x {h}" for h, w, _ in sides)[:3])
        raise UserError(str(folder), expected="square images of one size", found=found)
    hashes = [(entry.model_dump(), sha256_file(folder / entry.file)) for entry in index.images]
    return References(
        np.stack(images),
        tuple(entry.caption for entry in index.images),
        np.array([entry.flip for entry in index.images]),
        index.shift,
        sha256_json([index.shift, hashes]),
    )


def _index(folder: Path) -> Index:
    path = folder / INDEX
    if why_unusable(path) != "nothing":
        return read_model(path, Index, "an index of reference images", RESULT_BYTES, error=UserError)
    names = sorted(p.name for p in folder.glob("*.png") if p.name != SHEET and not is_clutter(p.name))
    if not names:
        raise UserError(str(folder), expected="PNG files", found="none")
    return Index(images=[Entry(file=name, caption=_caption(name)) for name in names])


def _caption(name: str) -> str:
    return re.sub(r"^\d{3,}-", "", name.removesuffix(".png"))


def _image(path: Path) -> NDArray[np.uint8]:
    if found := why_unusable(path):
        expected = "the image that the index names" if found == "nothing" else "a PNG file"
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
        raise UserError(str(path), expected="an image of the model", found=found, fix="draw it under another rule")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))


def by_caption(references: References) -> dict[str, int]:
    """Return captions, in the form of file names, to indices. Raises UserError if a caption occurs twice."""
    out: dict[str, int] = {}
    for i, caption in enumerate(references.captions):
        if slug(caption) in out:
            raise UserError("reference images", expected="one of each caption", found=f"two of {caption!r}")
        out[slug(caption)] = i
    return out
