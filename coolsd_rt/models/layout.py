"""The order of an image's tokens: rows of codes, line ends, an end token, and which tokens are forced.

Knows ids and positions: pure data. Does not know networks or sampling. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Layout:
    """`rows` rows of `columns` image codes in raster order; ids 0 .. codes - 1 are image codes.

    line_end: the id at the end of each row; None: there is none.
    end: the id behind the last row; None: there is none.
    """

    codes: int
    rows: int
    columns: int
    line_end: int | None = None
    end: int | None = None

    @property
    def stride(self) -> int:
        """Tokens of a row, its line end included."""
        return self.columns + (self.line_end is not None)

    @property
    def tokens(self) -> int:
        """Tokens of an image, forced ones included."""
        return self.rows * self.stride + (self.end is not None)

    @property
    def forced(self) -> NDArray[np.int64]:
        """The id that each token must have, int64 [tokens]; -1 where an image code is free.

        P and Q are point masses at a forced token. At a free token, ids from `codes` on have probability 0.
        """
        table = np.full(self.tokens, -1, np.int64)
        if self.line_end is not None:
            table[self.columns : self.rows * self.stride : self.stride] = self.line_end
        if self.end is not None:
            table[-1] = self.end
        return table

    @property
    def code_positions(self) -> NDArray[np.int64]:
        """Positions among the tokens of the codes that an image tokenizer decodes, int64 [rows * columns]."""
        return np.flatnonzero(self.forced < 0).astype(np.int64)

    @property
    def plain(self) -> bool:
        """Whether every token is an image code: there are no line ends and no end."""
        return self.line_end is None and self.end is None


def find_layout(forced: Sequence[int]) -> Layout | None:
    """Return the layout of a table of forced tokens (-1 where free): line ends, an end, or both; None if there is none.

    Its `codes` is 0: a table does not tell the number of codes.
    """
    table = np.asarray(forced, np.int64)
    taken = np.flatnonzero(table >= 0)
    if not len(taken) or taken[0] == 0 or len(taken) == len(table):
        return None
    columns = int(taken[0])
    for end in (None, int(table[-1])):
        rest = len(table) - (end is not None)
        line_end = int(table[columns]) if columns < rest else None
        stride = columns + 1 if line_end is not None else rest
        if rest % stride == 0:
            layout = Layout(0, rest // stride, stride - (line_end is not None), line_end, end)
            if np.array_equal(layout.forced, table):
                return layout
    return None


def is_layout(forced: Sequence[int]) -> bool:
    """Return whether a table of forced tokens (-1 where free) is that of a layout: line ends, an end, or both."""
    return find_layout(forced) is not None
