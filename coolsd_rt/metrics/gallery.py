"""Images on disk by id, and values computed of each, stored in batches so that an interrupted run continues.

A stored batch has its ids and a SHA-256 of its values; the name of a cache folder is a hash of everything that the
values depend on. Knows files, ids and arrays. Does not know what is computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import open_plain
from coolsd_rt.store.hashing import sha256_file, sha256_json
from coolsd_rt.store.results import Arrays, Batches

BATCH = 16  # images per batch
_FIELDS = ("ids", "values", "sha256")
_FORMATS = ("PNG", "JPEG")
RgbImage = NDArray[np.uint8]  # RGB [H, W, 3]
Values = NDArray[Any]


@dataclass(frozen=True)
class Gallery:
    """Images by id, in the order of ids. crop: cut each to its central square when it is read."""

    paths: Mapping[str, Path]
    crop: bool = False

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, in order."""
        return tuple(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def digest(self) -> str:
        """Digest of the contents of all files, the ids, and `crop`."""
        return sha256_json([self.crop, [(name, sha256_file(path)) for name, path in self.paths.items()]])

    def first(self, count: int) -> Gallery:
        """Return a gallery of the first `count` ids."""
        return Gallery(dict(list(self.paths.items())[:count]), self.crop)

    def batches(self) -> Iterator[tuple[str, ...]]:
        """Yield the ids in batches of `BATCH`."""
        for start in range(0, len(self), BATCH):
            yield self.ids[start : start + BATCH]

    def read(self, name: str) -> RgbImage:
        """Read one image, uint8 [H, W, 3]. Raises UserError if it is not PNG or JPEG, or is broken."""
        path = self.paths[name]
        try:
            with open_plain(path, "an image in PNG or JPEG") as file, Image.open(file, formats=_FORMATS) as opened:
                image = opened.convert("RGB")
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(str(path), expected="an image in PNG or JPEG", found=str(error)[:200]) from error
        if self.crop:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        return np.asarray(image)


def values_of(
    gallery: Gallery,
    folder: Path,
    identity: Any,
    compute: Callable[[list[RgbImage], tuple[str, ...]], Values],
    on_batch: Callable[[int], None] = lambda images: None,
) -> Values:
    """Return `compute` of all images, its rows in the order of ids. Batches that `folder` holds are read instead.

    identity: JSON data, everything that the values depend on besides the images. compute: takes images and their ids,
    returns an array with one row per image. on_batch: called with the number of images done so far. Raises CoolsdError
    if a stored batch is damaged.
    """
    kept = Batches(folder / sha256_json([identity, gallery.digest])[:16], _FIELDS, "values of a batch of images")
    parts = []
    for number, ids in enumerate(gallery.batches()):
        part = kept.get(number, partial(_batch, gallery, ids, compute))
        if tuple(part["ids"].tolist()) != ids or _digest(part["values"]) != str(part["sha256"]):
            expected = f"values of {ids[0]} to {ids[-1]} with their checksum"
            raise CoolsdError(f"{kept.folder}: batch {number}", expected=expected, found="others", fix="remove it")
        parts.append(part["values"])
        on_batch(len(ids))
    return np.concatenate(parts)


def _batch(
    gallery: Gallery, ids: tuple[str, ...], compute: Callable[[list[RgbImage], tuple[str, ...]], Values]
) -> Arrays:
    values = compute([gallery.read(name) for name in ids], ids)
    return {"ids": np.array(ids), "values": values, "sha256": np.array(_digest(values))}


def _digest(values: Values) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
