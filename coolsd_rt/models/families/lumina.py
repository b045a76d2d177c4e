"""Lumina-mGPT: a Chameleon whose images are rows of codes with a line end behind each row, and an end.

The prefix holds a prompt's text tokens, then begin of image and the two grid tokens; the unconditional row has only
these three. The token ids of the model differ from those of the graph, which knows images only:

    graph            model
    0 .. 8191        4 .. 8195     image codes (id - 4)
    8192             8803          line end
    8193             8196          end of image

Knows sizes and facts. Does not know the network, `coolsd_rt.models.decoder`. Source: Lumina-mGPT (Liu et al., 2024),
Chameleon (2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from coolsd_rt.models.config import Fault
from coolsd_rt.models.families.chameleon import BEGIN_OF_IMAGE, CHAMELEON_7B, ChameleonConfig
from coolsd_rt.models.families.family import Family
from coolsd_rt.models.layout import Layout

LINE_END, GRID = 8803, 8804
"""Token ids of the model: the line end, and the grid token of size 0."""


@dataclass(frozen=True, kw_only=True)
class LuminaConfig(ChameleonConfig):
    """Config of Lumina-mGPT. vocab: image codes, line end and end."""

    bare: ClassVar[int] = 3  # begin of image, rows, columns

    @property
    def layout(self) -> Layout:
        """The order of an image's tokens: rows of codes, each with a line end, then an end."""
        codes = self.vocab - 2
        return Layout(codes, self.grid, self.grid, line_end=codes, end=codes + 1)

    def faults(self) -> Iterator[Fault]:
        """Yield the values for which no network can be built."""
        if self.vocab < 3:
            yield Fault("vocab", "image codes, a line end and an end", str(self.vocab))
        yield from super().faults()


def image_head(grid: int) -> tuple[int, int, int]:
    """Return the model's ids between a prompt and the codes of `grid` rows: begin of image, height, width.

    Height and width are in units of 32 pixels. These ids end every prefix, and are the whole prefix of the
    unconditional row.
    """
    return BEGIN_OF_IMAGE, GRID + grid // 2, GRID + grid // 2


LUMINA = Family("lumina-mgpt", LuminaConfig, cell=16, sizes=(512, 768, 1024), models={"7B": CHAMELEON_7B})
