"""Computes the accept length and acceptance by position exactly, from P and Q along images that the target drew.

Given the resulting image x, the rounds of lossless decoding are a Markov chain along it: draft i of a round that begins
at token n equals x[n + i] and is accepted with probability min(1, Q_i / P) at that token, if all drafts before it were.
So the expected number of rounds is a sum, not a simulation, and with x drawn from P by the target alone, its mean over
images is unbiased. For the spec's schedule, the probability of reaching a draft is reweighted from P to the round's own
path (a factor of at most omega per draft), and the acceptance is summed over all codes where it is evaluated.

Texts end at a token: a draft behind it is cut off, and a round that accepts it draws no more token.

Knows NumPy arrays. Does not know networks. Not covered: `pacing`, and rules other than the ratio rule. The rounds of a
relaxed law are assumed to begin where lossless rounds begin.

Legend: M images, N image tokens, L draft length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from coolsd_rt.arrays import Floats64, Ints


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
    """Sums over images, accumulated batch by batch.

    most: int64 [N], the most drafts of a round that begins at each token; None: no limit but the draft length.
    """

    omegas: tuple[float, ...]
    most: Ints | None = None
    images: int = 0
    tokens: float = 0.0
    rounds: float = 0.0
    closed: float = 0.0  # rounds of the schedule that a draft ends, because it is the end of a text

    def __post_init__(self) -> None:
        self._reached, self._kept = (np.zeros((2, self.length)) for _ in range(2))

    @property
    def length(self) -> int:
        """The draft length L."""
        return len(self.omegas)

    def add(self, rates: Floats64, paths: Floats64, lengths: Ints | None = None, drafted: Ints | None = None) -> None:
        """Add a batch. Both arrays are float64 [2, L, M, N]: for lossless decoding and for the schedule.

        rates: sum over codes of min(Q_i, omega P) at each token. paths: min(Q_i / P, omega) at the image's code there.
        lengths, drafted: int64 [M], tokens of each text, and the number of its last token that a round may draft; None:
        images, whose last token is never drafted.
        """
        _, length, images, tokens = rates.shape
        if lengths is None or drafted is None:
            lengths = np.full(images, tokens)
            drafted = lengths - 2
        valid = _valid(length, tokens, drafted, self.most)
        starts = _starts(paths[0], valid, lengths)
        self.images += images
        self.tokens += float((lengths - 1).sum())
        self.rounds += float(starts.sum())
        is_end = np.arange(tokens) == np.where(drafted == lengths - 1, drafted, -1)[:, None]  # [M, N]
        for law in range(2):
            reach = starts.copy()  # [M, N], by the first token of the round
            for i in range(length):
                at = np.minimum(np.arange(tokens) + i, tokens - 1)
                reach = reach * valid[i]
                self._reached[law, i] += reach.sum()
                self._kept[law, i] += (reach * rates[law, i][:, at]).sum()
                reach = reach * paths[law, i][:, at]
                if law == 1:
                    self.closed += float((reach * is_end[:, at]).sum())

    def result(self) -> Acceptance:
        """Return the acceptance over all batches. NaN if no round began."""
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = self._kept / self._reached
            relaxed = 1 + (self._kept[1].sum() - self.closed) / np.float64(self.rounds)
            length = np.float64(self.tokens) / self.rounds
        first, second = (tuple(float(s) for s in row) for row in shares)
        return Acceptance(float(length), first, float(relaxed), second, self.images)


def _valid(length: int, tokens: int, drafted: Ints, most: Ints | None = None) -> Floats64:
    """Return [L, M, N]: 1 where draft i of a round that begins at token n counts.

    It does up to the last token that is drafted, int64 [M], and for `most` drafts. No round begins at token 0.
    """
    begin = np.arange(tokens)
    most = np.full(tokens, length) if most is None else most
    rows = [(begin >= 1) & (begin + i <= drafted[:, None]) & (i < most) for i in range(length)]
    return np.array(rows, np.float64).reshape(-1, len(drafted), tokens)


def _starts(path: Floats64, valid: Floats64, lengths: Ints) -> Floats64:
    """Return the probability, given the image, that a lossless round begins at token n: [M, N] from path [L, M, N]."""
    length, images, tokens = path.shape
    starts = np.zeros((images, tokens + length + 1))
    starts[:, 1] = 1.0
    for n in range(1, tokens):
        starts[:, n] *= n < lengths
        alive = starts[:, n].copy()  # probability that all drafts before i were accepted
        for i in range(length):
            counts = valid[i, :, n]
            # All drafts accepted and none left: the round's last token comes from P.
            accepted = alive * counts * path[i, :, min(n + i, tokens - 1)]
            starts[:, n + i + 1] += alive - accepted
            alive = accepted
        starts[:, n + length + 1] += alive
    return starts[:, :tokens] * (np.arange(tokens) < lengths[:, None])
