"""Retrieval accuracy: how often the nearest reference of an image, by squared pixel distance, belongs to its prompt.

Knows images and references. Does not know where either comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from coolsd_rt.errors import UserError
from coolsd_rt.metrics.metric import RETRIEVAL, Figure, Images, Kind
from coolsd_rt.metrics.references import References, by_caption
from coolsd_rt.workflows.png import slug

_CHUNK_BYTES = 64 << 20  # bytes of references in float32 per chunk


def nearest(images: Images, references: References) -> NDArray[np.int64]:
    """Return the index [N] of each image's nearest reference, allowing the references' shifts and flips.

    Shifts wrap around, so shifting the image instead of all references gives the same distances.
    """
    best = np.full(len(images), np.inf, np.float32)
    owner = np.zeros(len(images), np.int64)
    steps = range(-references.shift, references.shift + 1)
    moved = [_flat(np.roll(images, (dy, dx), (1, 2))) for dy in steps for dx in steps]
    size = max(1, _CHUNK_BYTES // (4 * moved[0].shape[1]))
    for start in range(0, len(references.images), size):
        part = references.images[start : start + size]
        flips = references.flips[start : start + size]
        owners = start + np.concatenate([np.arange(len(part)), np.flatnonzero(flips)])
        candidates = _flat(np.concatenate([part, part[flips][:, :, ::-1]]))
        squares = (candidates**2).sum(1)
        for x in moved:
            scores = squares - 2 * x @ candidates.T
            found = scores.argmin(1)
            score = scores[np.arange(len(x)), found]
            closer = score < best
            best = np.where(closer, score, best)
            owner = np.where(closer, owners[found], owner)
    return owner


def _flat(images: Images) -> NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def share(correct: NDArray[np.bool_]) -> Figure:
    """Return a share of true values with its Wilson interval."""
    count, of = int(correct.sum()), len(correct)
    low, high = binomtest(count, of).proportion_ci(0.95, "wilson")
    return Figure(value=count / of, low=float(low), high=float(high), interval="95%, Wilson")


class RetrievalAccuracy:
    """Retrieval accuracy as a measure. Every prompt needs a reference image."""

    plain_images = False

    def __init__(self, references: References, folder: Path) -> None:
        self.references, self.folder = references, folder
        self.own = by_caption(references)

    @property
    def kind(self) -> Kind:
        """Name and direction of the measure."""
        return RETRIEVAL

    def identity(self) -> Any:
        """Return the digest of the references, JSON data."""
        return {"references": self.references.digest}

    def check(self, side: int, prompts: Sequence[str]) -> None:
        """Raise UserError unless the references have `side` pixels and every prompt has one."""
        if self.references.side != side:
            expected, found = f"images of {side} x {side}, as the engine draws", str(self.references.side)
            raise UserError(str(self.folder), expected=expected, found=found)
        if missing := [prompt for prompt in prompts if slug(prompt) not in self.own]:
            found = f"none of {missing[0]!r}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            expected, fix = "a reference image of every prompt", f"add {slug(missing[0])}.png, or choose the prompts"
            raise UserError(str(self.folder), expected=expected, found=found, fix=fix)

    def refer(self, images: Images) -> None:
        """Do nothing: the references come from a folder."""

    def measure(self, images: Images, prompts: Sequence[str]) -> Figure:
        """Return the share of images whose nearest reference is that of their prompt."""
        own = np.array([self.own[slug(prompt)] for prompt in prompts])
        return share(nearest(images, self.references) == own)
