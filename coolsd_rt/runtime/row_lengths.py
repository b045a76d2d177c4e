"""How many drafts of a row head a round can have: to the end of its row, and no more than can be guessed.

Pure arithmetic, shared by the drafter and by training. Does not know networks or probabilities. Legend as in
`coolsd_rt.runtime.round`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coolsd_rt.arrays import Ints


def row_lengths(begin: Ints, row: int, ahead: int) -> Ints:
    """Return the most drafts of rounds whose first undecided token is `begin` int64 [...], at least 1.

    row: tokens of a row, its line end included. ahead: drafts that are guessed along the row. In the first row there
    are no others. The image's end is not looked at.
    """
    to_end = row - begin % row
    most: np.ndarray[Any, np.dtype[np.int64]] = np.where(begin < row, np.minimum(to_end, ahead), to_end)
    return most
