"""Progress of a batch, reported while its rounds run.

Knows counts and token ids. Does not know which loop runs or who receives the reports.

Legend: M images, N image tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coolsd_rt.arrays import Ints


@dataclass(frozen=True)
class Progress:
    """The state of a batch after one of its rounds.

    Attributes:
        decided: int64 [M], number of decided image tokens of each image. A device's loop runs ahead of the host's
            knowledge: later rounds may have decided more.
        mean_acceptance_length: tokens per round so far; NaN before the first round.
        codes: function that copies the image tokens, int64 [M, N], to the host. Entries before `decided[m]` are final,
            the others are undefined. Call it before the callback returns, because later rounds reuse the memory. On
            a device's loop the call waits for the rounds that are running; if the callback does not call it, the loop
            does not wait.
    """

    decided: Ints
    mean_acceptance_length: float
    codes: Callable[[], Ints]

    @property
    def total(self) -> int:
        """Number of decided image tokens in all images."""
        return int(self.decided.sum())


OnProgress = Callable[[Progress], None]
