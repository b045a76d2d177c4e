"""The part of `bench` on several images at once: what a user who draws a batch gets, beside plain decoding.

On a CPU each row of a step costs time, and a batch ends with its slowest image: what pays for one image can lose half
of the speed of four. Knows rows that were timed. Runs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coolsd_rt.bench.report import BenchRow, TextTable

SIZES = (2, 4, 8)  # beside single images, as far as the engine takes them
KINDS = ("lossless", "auto")  # variants that are timed at every size: a fixed draft, and the default


@dataclass(frozen=True)
class AtOnce:
    """Variants of decoding `images` images at once; plain decoding comes first."""

    images: int
    rows: tuple[BenchRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {"batch": self.images, "ways": [row.as_dict() for row in self.rows]}


def table(sizes: tuple[AtOnce, ...]) -> TextTable:
    """Return one line for each variant and number of images."""
    cells = tuple(
        (str(one.images), row.name, row.rate.text(0), "1" if row.ratio is None else row.ratio.text(2, "x"))
        for one in sizes
        for row in one.rows
    )
    return TextTable("several images at once", ("images", "variant", "tokens/s", "vs plain"), cells)
