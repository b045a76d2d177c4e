"""Compute the draft length up to which a round is worth its time.

Knows acceptance rates and seconds. Does not know who measured them.

Measured are: the acceptance at each position and the time of a round, both at the length L that was run; the time of a
round of plain decoding; the target's step over every window from 1 to L + 1 tokens. For a shorter length l, these
follow by arithmetic, not by measurement:

- tokens of a round: 1 + sum over i <= l of the product of the acceptances up to i. The omegas are those of length L,
  cut after l; a schedule that is normalised over l positions would differ.
- seconds of a round: those of a plain round, plus the measured extra time of the target's wider window, plus l / L of
  the rest of the measured round: draft, verify, Python. Part of this rest does not shrink with l, so short lengths come
  out slightly too fast.

At l = L both equal the measurement. Under pacing all figures concern rounds that draft, and windows that
`draft_confidence` did not cut; how often these occur is not included. In a batch the slowest image decides; here each
image stands alone. To measure other lengths instead: `coolsd-rt bench --draft-length`. Those drafts run step by step,
while an engine built at that length would run them in one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Length:
    """Expected figures of one draft length.

    length: draft length.
    tokens: tokens of a round that drafts.
    seconds: seconds of such a round.
    speedup: its tokens per second over those of plain decoding.
    """

    length: int
    tokens: float
    seconds: float
    speedup: float

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {
            "draft_length": self.length,
            "tokens_per_round": self.tokens,
            "seconds_per_round": self.seconds,
            "versus_plain": self.speedup,
        }


@dataclass(frozen=True)
class BreakEven:
    """Figures of all draft lengths from 1 to the one that was run."""

    lengths: tuple[Length, ...]

    @property
    def longest(self) -> int:
        """The longest draft length that is no slower than plain decoding; 0 if there is none."""
        return max((at.length for at in self.lengths if at.speedup >= 1), default=0)

    @property
    def best(self) -> int:
        """The fastest draft length; 0 (no draft) if none is as fast as plain decoding."""
        return max(self.lengths, key=lambda at: at.speedup).length if self.longest else 0

    def text(self) -> str:
        """Return `up to 4, best 2`, or `5 or more, best 3` if the longest length that was run still pays."""
        if not self.longest:
            return "none"
        reach = f"{self.longest} or more" if self.longest == len(self.lengths) else f"up to {self.longest}"
        return f"{reach}, best {self.best}"

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {
            "break_even_draft_length": self.longest,
            "best_draft_length": self.best,
            "by_draft_length": [at.as_dict() for at in self.lengths],
        }


def tokens_by_length(accepts: Sequence[int], attempts: Sequence[int]) -> list[float]:
    """Return the expected tokens of a round with 1..L drafts, including the resampled or bonus token.

    accepts, attempts: numbers of rounds in which draft i was accepted, and evaluated.

    The list ends before a position that rounds reach but that was never evaluated.
    """
    tokens, reach, out = 1.0, 1.0, []
    for accepted, evaluated in zip(accepts, attempts, strict=True):
        if not evaluated and reach:
            break
        reach *= accepted / evaluated if evaluated else 0.0
        tokens += reach
        out.append(tokens)
    return out


def break_even(tokens: Sequence[float], plain: float, whole: float, window: Mapping[int, float]) -> BreakEven | None:
    """Compute the figures of all draft lengths up to the L that was run; None if positions are missing.

    tokens: `tokens_by_length` at length L, L entries.
    plain: seconds of a round of plain decoding.
    whole: seconds of a round with L drafts.
    window: seconds of the target's step over 1..L + 1 tokens.
    """
    length = max(window) - 1
    if not length or len(tokens) < length:
        return None
    wider = {n: window[n + 1] - window[1] for n in range(1, length + 1)}
    rest = whole - plain - wider[length]
    lengths = []
    for n in range(1, length + 1):
        seconds = plain + wider[n] + rest * n / length
        lengths.append(Length(n, tokens[n - 1], seconds, tokens[n - 1] * plain / seconds))
    return BreakEven(tuple(lengths))
