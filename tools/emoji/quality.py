"""How often a generated picture is recognisably its prompt's: nearest-glyph retrieval in pixel space.

Knows pictures and glyphs. Does not know models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .data import SHIFT, Glyphs, may_flip, on_white


@dataclass(frozen=True)
class Retrieval:
    """Per picture: the index of the nearest glyph and whether it is the prompt's own."""

    nearest: npt.NDArray[np.int64]
    correct: npt.NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


def variants(glyphs: Glyphs) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Every glyph under the training's shifts and flips: pixels [K, 64*64*3] in [0, 1] and the glyph's index [K]."""
    clean = on_white(glyphs.rgba)
    pictures, owners = [], []
    steps = range(-SHIFT, SHIFT + 1)
    for i, (picture, caption) in enumerate(zip(clean, glyphs.captions, strict=True)):
        for base in (picture, picture[:, ::-1]) if may_flip(caption) else (picture,):
            for dy in steps:
                for dx in steps:
                    pictures.append(np.roll(base, (dy, dx), (0, 1)).reshape(-1))
                    owners.append(i)
    return np.stack(pictures), np.array(owners)


def retrieve(pictures: npt.NDArray[np.uint8], prompts: list[str], glyphs: Glyphs) -> Retrieval:
    """Nearest glyph by squared pixel distance, of all trained, under the training's shifts and flips.

    pictures uint8 [N, 64, 64, 3], one prompt (a trained caption) each.
    """
    references, owners = variants(glyphs)
    x = pictures.reshape(len(pictures), -1).astype(np.float32) / 255
    squares = (references**2).sum(1)
    nearest = np.concatenate([owners[(squares - 2 * part @ references.T).argmin(1)] for part in np.array_split(x, 8)])
    own = np.array([glyphs.captions.index(p) for p in prompts])
    return Retrieval(nearest, nearest == own)
