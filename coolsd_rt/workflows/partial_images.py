"""Partial images: decodes the finished rows of an unfinished image and leaves the rest blank.

Knows the grid of codes and its pixels. Does not know how codes are drawn or who sees them.

The image graph decodes all codes of an image at once. Undecided codes are filled with the finished rows, mirrored at
the last one, so that the decoder receives a continuous image; their pixels are then blanked. The decoder's receptive
field and normalisation reach across the boundary, so finished rows of a partial image approximate the final rows.

Legend: M images, N image tokens, F pixels a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coolsd_rt.arrays import Ints, Pixels
from coolsd_rt.backends import Description
from coolsd_rt.models.layout import find_layout

BLANK = 255  # white: value of every channel below the finished rows


class CodeGrid:
    """Positions of an image's codes among its tokens, row by row."""

    def __init__(self, description: Description) -> None:
        tokens = description.dims.tokens
        self._forced = np.full(tokens, -1, np.int64)
        if description.forced is not None:
            self._forced[:] = description.forced
        free = np.flatnonzero(self._forced < 0)
        layout = None if description.forced is None else find_layout(description.forced)
        side = int(len(free) ** 0.5)
        rows = side if side * side == len(free) else 1  # not a square of codes: shown when finished
        if layout is not None and layout.line_end is not None and layout.rows > 1:  # of one row: may be the image end
            rows = layout.rows
        self._free: Ints = free.reshape(rows, -1)  # [rows, columns]: the token of each code

    @property
    def rows(self) -> int:
        """Number of rows of codes."""
        return len(self._free)

    @property
    def columns(self) -> int:
        """Number of codes in a row."""
        return int(self._free.shape[1])

    def finished(self, decided: Ints) -> Ints:
        """Return int64 [M]: the number of rows whose codes are all among the first `decided` [M] tokens."""
        return np.searchsorted(self._free[:, -1], np.asarray(decided, np.int64), side="left").astype(np.int64)

    def filled(self, codes: Ints, decided: Ints) -> Ints:
        """Return int64 [M, N] with valid codes everywhere.

        codes: [M, N], of which the first `decided` [M] tokens are valid.

        Each image must have at least one finished row.
        """
        out = np.where(self._forced >= 0, self._forced, codes)
        for image, (done, count) in enumerate(zip(self.finished(decided).tolist(), decided.tolist(), strict=True)):
            tail = self._free[done:]
            made_up = out[image, self._free[_mirrored(done, self.rows)]]
            out[image, tail] = np.where(tail < count, out[image, tail], made_up)
        return out

    def blanked(self, pixels: Pixels, rows: int) -> Pixels:
        """Return a copy of RGB uint8 [F, F, 3] that is blank below the first `rows` rows of codes."""
        out = pixels.copy()
        out[len(out) * rows // self.rows :] = BLANK
        return out


def _mirrored(done: int, rows: int) -> Ints:
    """Return int64 [rows - done]: the finished row that each other row repeats, back and forth from the last one."""
    there = np.concatenate([np.arange(done)[::-1], np.arange(done)])
    return np.resize(there, rows - done).astype(np.int64)


class PartialImages:
    """Selects the images of a batch that are due to be shown, at most `count` times each before they are finished."""

    def __init__(self, grid: CodeGrid, count: int) -> None:
        steps = {-(-grid.rows * k // (count + 1)) for k in range(1, count + 1)}
        self._due = sorted(rows for rows in steps if 0 < rows < grid.rows)
        self._grid, self._shown = grid, dict[int, int]()  # index of an image to the rows shown of it

    def due(self, images: Sequence[int], decided: Ints) -> Ints:
        """Return the indices into `images` [M] that have reached their next step of finished rows, once per step."""
        rows = self._grid.finished(decided).tolist()
        found = []
        for place, (image, done) in enumerate(zip(images, rows, strict=True)):
            reached = max((step for step in self._due if step <= done), default=0)
            if self._shown.get(image, 0) < reached and done < self._grid.rows:
                self._shown[image] = reached
                found.append(place)
        return np.array(found, np.int64)
