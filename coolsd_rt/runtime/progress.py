"""Progress of a batch, reported while its rounds run.

Knows counts and token ids. Does not know which loop runs, nor who listens.

Legend: M images, N image tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coolsd_rt.arrays import Ints


@dataclass(frozen=True)
class Progress:
    """A batch after one of its rounds.

    decided: int64 [M], image tokens decided of each image. On a device's loop rounds run ahead of what the host has
    heard: a later round may have decided more.
    mean_acceptance_length: tokens per round so far; NaN before the first round.
    codes: gives the image tokens, int64 [M, N], as a copy on the host. Entries before `decided[m]` are final, the
    others mean nothing. Call it before the callback returns: the memory that it reads serves the next batch too. On a
    device's loop a call waits for the rounds under way; a loop whose callback does not call it does not wait.
    """

    decided: Ints
    mean_acceptance_length: float
    codes: Callable[[], Ints]

    @property
    def total(self) -> int:
        """Image tokens decided in all images."""
        return int(self.decided.sum())


OnProgress = Callable[[Progress], None]
