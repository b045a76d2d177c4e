"""How often a generated image is recognisably its prompt's: nearest-glyph retrieval in pixel space.

Knows glyphs. Does not know models, nor how a nearest image is found (`coolsd_rt.metrics.retrieval`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coolsd_rt.metrics.references import References
from coolsd_rt.metrics.retrieval import nearest

from .data import SHIFT, Glyphs, may_flip, on_white


@dataclass(frozen=True)
class Retrieval:
    """Per image: the index of the nearest glyph and whether it is the prompt's own."""

    nearest: npt.NDArray[np.int64]
    correct: npt.NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


def references(glyphs: Glyphs) -> References:
    """Every glyph on white, with the shifts and flips that training showed it under."""
    pixels = (on_white(glyphs.rgba) * 255).round().astype(np.uint8)
    flips = np.array([may_flip(caption) for caption in glyphs.captions])
    return References(pixels, glyphs.captions, flips, SHIFT, digest="")


def retrieve(images: npt.NDArray[np.uint8], prompts: list[str], glyphs: Glyphs) -> Retrieval:
    """Nearest glyph by squared pixel distance, of all trained, under the training's shifts and flips.

    images uint8 [N, 64, 64, 3], one prompt (a trained caption) each.
    """
    found = nearest(images, references(glyphs))
    own = np.array([glyphs.captions.index(p) for p in prompts])
    return Retrieval(found, found == own)
