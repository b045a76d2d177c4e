"""Computes the accept length and acceptance by position exactly, from P and Q along images that the target drew.

Given the resulting image x, the rounds of lossless decoding are a Markov chain along it: draft i of a round that begins
at token n equals x[n + i] and is accepted with probability min(1, Q_i / P) at that token, if all drafts before it were.
So the expected number of rounds is a sum, not a simulation, and with x drawn from P by the target alone, its mean over
images is unbiased. For the spec's schedule, the probability of reaching a draft is reweighted from P to the round's own
path (a factor of at most omega per draft), and the acceptance is summed over all codes where it is evaluated.

Knows NumPy arrays. Does not know networks. Not covered: `pacing`, and rules other than the ratio rule. The rounds of a
relaxed law are assumed to begin where lossless rounds begin.

Legend: M images, N image tokens, L draft length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from coolsd_rt.arrays import Floats64


@dataclass(frozen=True)
class Acceptance:
    """The acceptance of a draft.

    Attributes:
        accept_length: tokens per round of lossless decoding, including the resampled or bonus token.
        acceptance: [L], the probability of accepting draft i once it is evaluated.
        relaxed: accept length under the spec's schedule.
        relaxed_acceptance: [L], the acceptance under the spec's schedule.
        images: number of images measured.
    """

    accept_length: float
    acceptance: tuple[float, ...]
    relaxed: float
    relaxed_acceptance: tuple[float, ...]
    images: int

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {
            "accept_length": self.accept_length,
            "acceptance_by_position": list(self.acceptance),
            "accept_length_of_the_schedule": self.relaxed,
            "acceptance_by_position_of_the_schedule": list(self.relaxed_acceptance),
            "images": self.images,
        }


@dataclass
class Tally:
    """Sums over images, accumulated batch by batch."""

    omegas: tuple[float, ...]
    images: int = 0
    tokens: float = 0.0
    rounds: float = 0.0

    def __post_init__(self) -> None:
        self._reached, self._kept = (np.zeros((2, self.length)) for _ in range(2))

    @property
    def length(self) -> int:
        """The draft length L."""
        return len(self.omegas)

    def add(self, rates: Floats64, paths: Floats64) -> None:
        """Add a batch. Both arguments are float64 [2, L, M, N]: for lossless decoding and for the schedule.

        rates: sum over codes of min(Q_i, omega P) at each token. paths: min(Q_i / P, omega) at the image's code there.
        """
        _, length, images, tokens = rates.shape
        valid = _valid(length, tokens)
        starts = _starts(paths[0], valid)
        self.images += images
        self.tokens += images * (tokens - 1)
        self.rounds += float(starts.sum())
        for law in range(2):
            reach = starts.copy()  # [M, N], by the first token of the round
            for i in range(length):
                at = np.minimum(np.arange(tokens) + i, tokens - 1)
                reach = reach * valid[i]
                self._reached[law, i] += reach.sum()
                self._kept[law, i] += (reach * rates[law, i][:, at]).sum()
                reach = reach * paths[law, i][:, at]

    def result(self) -> Acceptance:
        """Return the acceptance over all batches. NaN if no round began."""
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = self._kept / self._reached
            relaxed = 1 + self._kept[1].sum() / np.float64(self.rounds)
            length = np.float64(self.tokens) / self.rounds
        first, second = (tuple(float(s) for s in row) for row in shares)
        return Acceptance(float(length), first, float(relaxed), second, self.images)


def _valid(length: int, tokens: int) -> Floats64:
    """Return [L, N]: 1 where draft i of a round that begins at token n counts.

    The last token of an image is never drafted, and no round begins at token 0.
    """
    begin = np.arange(tokens)
    return np.array([(begin >= 1) & (begin + i <= tokens - 2) for i in range(length)], np.float64).reshape(-1, tokens)


def _starts(path: Floats64, valid: Floats64) -> Floats64:
    """Return the probability, given the image, that a lossless round begins at token n: [M, N] from path [L, M, N]."""
    length, images, tokens = path.shape
    starts = np.zeros((images, tokens + length + 1))
    starts[:, 1] = 1.0
    for n in range(1, tokens):
        alive = starts[:, n].copy()  # probability that all drafts before i were accepted
        for i in range(length):
            if not valid[i, n]:
                starts[:, n + i + 1] += alive  # all drafts accepted: the round's last token comes from P
                break
            accepted = alive * path[i, :, n + i]
            starts[:, n + i + 1] += alive - accepted
            alive = accepted
        else:
            starts[:, n + length + 1] += alive
    return starts[:, :tokens]
