"""The order of a picture's tokens: rows of codes, line ends, an end, and which of them nothing can change.

Pure data. Does not know networks or sampling. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Layout:
    """`rows` rows of `columns` image codes in raster order; ids 0 .. codes - 1 are image codes.

    line_end: the id that stands at the end of each row. end: the id behind the last row. None: there is none.
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
        """Tokens of a picture, forced ones included."""
        return self.rows * self.stride + (self.end is not None)

    @property
    def forced(self) -> NDArray[np.int64]:
        """int64 [tokens]: the id that has to stand there, or -1 where an image code is free.

        P and Q are point masses at a forced token. At a free one ids from `codes` on have no probability.
        """
        table = np.full(self.tokens, -1, np.int64)
        if self.line_end is not None:
            table[self.columns : self.rows * self.stride : self.stride] = self.line_end
        if self.end is not None:
            table[-1] = self.end
        return table

    @property
    def painted(self) -> NDArray[np.int64]:
        """int64 [rows * columns]: where the codes that an image tokenizer paints stand among the tokens."""
        return np.flatnonzero(self.forced < 0).astype(np.int64)

    @property
    def plain(self) -> bool:
        """Whether every token is a code that is painted."""
        return self.line_end is None and self.end is None
