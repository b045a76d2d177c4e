"""What can be shown of an image before it is finished: its finished rows decoded, the others blank.

Knows the grid of codes and its pixels. Does not know how codes are drawn, nor who looks.

The graph that decodes images takes all codes of an image at once. Codes that are not decided yet are made up of the
finished rows, mirrored at the last one, so that the decoder sees an image that goes on as it began; what it makes of
them is blanked. Its receptive field and its normalisations reach across the seam, so a finished row of a partial image
is near the final one, not equal to it.

Legend: M images, N image tokens, F pixels a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coolsd_rt.arrays import Ints, Pixels
from coolsd_rt.backends import Description
from coolsd_rt.models.layout import find_layout

BLANK = 255  # white: every channel of a pixel that no finished row reaches


class CodeGrid:
    """Where the codes of an image stand among its tokens, row by row."""

    def __init__(self, description: Description) -> None:
        tokens = description.dims.tokens
        self._forced = np.full(tokens, -1, np.int64)
        if description.forced is not None:
            self._forced[:] = description.forced
        free = np.flatnonzero(self._forced < 0)
        layout = None if description.forced is None else find_layout(description.forced)
        side = int(len(free) ** 0.5)
        rows = side if side * side == len(free) else 1  # no square of codes: shown whole, at the end
        if layout is not None and layout.line_end is not None and layout.rows > 1:  # of one row it may be the end
            rows = layout.rows
        self._free: Ints = free.reshape(rows, -1)  # [rows, columns]: the token of each code

    @property
    def rows(self) -> int:
        """Rows of codes."""
        return len(self._free)

    def finished(self, decided: Ints) -> Ints:
        """int64 [M]: rows whose codes are all decided, where the first `decided` [M] tokens are."""
        return np.searchsorted(self._free[:, -1], np.asarray(decided, np.int64), side="left").astype(np.int64)

    def filled(self, codes: Ints, decided: Ints) -> Ints:
        """int64 [M, N]: valid codes everywhere. codes: [M, N], of which the first `decided` [M] tokens count.

        Each image has a finished row at least.
        """
        out = np.where(self._forced >= 0, self._forced, codes)
        for image, (done, count) in enumerate(zip(self.finished(decided).tolist(), decided.tolist(), strict=True)):
            tail = self._free[done:]
            made_up = out[image, self._free[_mirrored(done, self.rows)]]
            out[image, tail] = np.where(tail < count, out[image, tail], made_up)
        return out

    def blanked(self, pixels: Pixels, rows: int) -> Pixels:
        """RGB uint8 [F, F, 3], a copy, with everything below the first `rows` rows of codes blank."""
        out = pixels.copy()
        out[len(out) * rows // self.rows :] = BLANK
        return out


def _mirrored(done: int, rows: int) -> Ints:
    """int64 [rows - done]: the finished row that each of the others repeats, back and forth from the last one."""
    there = np.concatenate([np.arange(done)[::-1], np.arange(done)])
    return np.resize(there, rows - done).astype(np.int64)


class PartialImages:
    """Which images of a batch are due to be shown, at most `count` times each before they are finished."""

    def __init__(self, grid: CodeGrid, count: int) -> None:
        steps = {-(-grid.rows * k // (count + 1)) for k in range(1, count + 1)}
        self._due = sorted(rows for rows in steps if 0 < rows < grid.rows)
        self._grid, self._shown = grid, dict[int, int]()  # image of the request to rows that were shown of it

    def due(self, images: Sequence[int], decided: Ints) -> Ints:
        """Places in `images` [M] of those that have reached another step of their rows. Each step is due once."""
        rows = self._grid.finished(decided).tolist()
        found = []
        for place, (image, done) in enumerate(zip(images, rows, strict=True)):
            reached = max((step for step in self._due if step <= done), default=0)
            if self._shown.get(image, 0) < reached and done < self._grid.rows:
                self._shown[image] = reached
                found.append(place)
        return np.array(found, np.int64)
