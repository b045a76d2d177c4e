"""Accept length by position, exactly, from P and Q along images that the target drew itself.

The rounds of lossless decoding, given the image x that comes out, are a Markov chain along it: draft i of a round
that begins at token n is x[n + i], and kept, with min(1, Q_i / P) at that token, if all before it were. So the expected
number of rounds is a sum, not a simulation; and with x drawn from P by the target alone, its mean over images is
unbiased. For the law of a spec's schedule, the probability to reach a draft is weighted from P to the round's own path
(a factor of at most omega a draft), and the sum over all codes is taken where it is judged.

Knows arrays of NumPy. Does not know networks. What it does not see: `pacing`, and rules beside the ratio's. The rounds
of a relaxed law are begun where lossless ones begin.

Legend: M images, N image tokens, L draft length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from coolsd_rt.arrays import Floats64


@dataclass(frozen=True)
class Acceptance:
    """accept_length: tokens a round of lossless decoding, the resampled or bonus token included. acceptance: the
    probability to keep draft i once it is judged, [L]. relaxed: accept length under the spec's schedule, with its own
    relaxed_acceptance [L]. images: how many it was measured on."""

    accept_length: float
    acceptance: tuple[float, ...]
    relaxed: float
    relaxed_acceptance: tuple[float, ...]
    images: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "accept_length": self.accept_length,
            "acceptance_by_position": list(self.acceptance),
            "accept_length_of_the_schedule": self.relaxed,
            "acceptance_by_position_of_the_schedule": list(self.relaxed_acceptance),
            "images": self.images,
        }


@dataclass
class Tally:
    """Sums over images, to which batches add."""

    omegas: tuple[float, ...]
    images: int = 0
    tokens: float = 0.0
    rounds: float = 0.0

    def __post_init__(self) -> None:
        self._reached, self._kept = (np.zeros((2, self.length)) for _ in range(2))

    @property
    def length(self) -> int:
        return len(self.omegas)

    def add(self, rates: Floats64, paths: Floats64) -> None:
        """rates, paths: [2, L, M, N] for lossless decoding and for the schedule. rates: sum over codes of
        min(Q_i, omega P) at each token; paths: min(Q_i / P, omega) at the image's own code there."""
        _, length, images, tokens = rates.shape
        valid = _valid(length, tokens)
        starts = _starts(paths[0], valid)
        self.images += images
        self.tokens += images * (tokens - 1)
        self.rounds += float(starts.sum())
        for law in range(2):
            reach = starts.copy()  # [M, N] by the round's first token
            for i in range(length):
                at = np.minimum(np.arange(tokens) + i, tokens - 1)
                reach = reach * valid[i]
                self._reached[law, i] += reach.sum()
                self._kept[law, i] += (reach * rates[law, i][:, at]).sum()
                reach = reach * paths[law, i][:, at]

    def result(self) -> Acceptance:
        """Of all that was added. NaN where no round began."""
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = self._kept / self._reached
            relaxed = 1 + self._kept[1].sum() / np.float64(self.rounds)
            length = np.float64(self.tokens) / self.rounds
        first, second = (tuple(float(s) for s in row) for row in shares)
        return Acceptance(float(length), first, float(relaxed), second, self.images)


def _valid(length: int, tokens: int) -> Floats64:
    """[L, N]: 1 where draft i of a round that begins at token n counts: the image's last token is never drafted, and
    token 0 begins no round."""
    begin = np.arange(tokens)
    return np.array([(begin >= 1) & (begin + i <= tokens - 2) for i in range(length)], np.float64).reshape(-1, tokens)


def _starts(path: Floats64, valid: Floats64) -> Floats64:
    """Probability that a lossless round begins at token n, given the image: [M, N] from path [L, M, N]."""
    length, images, tokens = path.shape
    starts = np.zeros((images, tokens + length + 1))
    starts[:, 1] = 1.0
    for n in range(1, tokens):
        alive = starts[:, n].copy()  # probability that drafts before i were all kept
        for i in range(length):
            if not valid[i, n]:
                starts[:, n + i + 1] += alive  # no draft is left: the round's last token comes from P
                break
            accepted = alive * path[i, :, n + i]
            starts[:, n + i + 1] += alive - accepted
            alive = accepted
        else:
            starts[:, n + length + 1] += alive
    return starts[:, :tokens]
