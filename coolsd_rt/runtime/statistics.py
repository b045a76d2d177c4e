"""What a generation did and what it cost: counts and seconds.

Knows counters and an injected clock. Does not know models, nor how a figure is shown.

Legend: M images, N image tokens, L draft length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from coolsd_rt.arrays import Bools, Ints

PHASES = ("target", "draft", "verify", "device", "other")  # device: all of a device's loop
LoopTaken = Literal["host", "device"]


@dataclass
class Statistics:
    """Counts over all rounds of a batch. An image's first token comes from the prefill and belongs to no round."""

    rounds: Ints  # [M] rounds of each image
    accepted_histogram: Ints  # [L + 1] rounds by number of accepted drafts
    attempts: Ints  # [L] rounds in which draft i was evaluated, all before it being accepted (forced ones included)
    accepts: Ints  # [L] rounds in which draft i was accepted
    degenerate: int = 0  # rejections that found no residual and drew from P
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    draft_tokens: int = 0  # tokens proposed: drafts that counted, evaluated or not
    # Wall seconds of the batch's rounds by their longest window, in drafts. Every round of a device's loop is L wide,
    # and the host knows the mean of its rounds alone: one entry a batch.
    round_seconds: dict[int, list[float]] = field(default_factory=dict)
    seconds_prefix: float = 0.0  # before the loop: the condition and a fresh session, as `drawing.draw` makes them

    @staticmethod
    def empty(images: int, length: int) -> Statistics:
        rounds, histogram, attempts, accepts = (np.zeros(n, np.int64) for n in (images, length + 1, length, length))
        return Statistics(rounds, histogram, attempts, accepts)

    def record(self, accepted: Ints, num_drafts: Ints, degenerate: Bools, active: Bools) -> None:
        """One round of the batch. All [M]; only active images count."""
        self.rounds += active
        self.degenerate += int(np.count_nonzero(degenerate & active))
        self.draft_tokens += int(num_drafts[active].sum())
        for k, count in zip(accepted[active].tolist(), num_drafts[active].tolist(), strict=True):
            self.accepted_histogram[k] += 1
            self.accepts[:k] += 1
            self.attempts[: min(k + 1, count)] += 1

    def time_round(self, drafts: int, seconds: float) -> None:
        """A round of the batch whose longest window had so many drafts took so long."""
        self.round_seconds.setdefault(drafts, []).append(seconds)

    def seconds_by_phase(self, loop: LoopTaken | None) -> dict[str, float | None]:
        """`seconds`, with None for what that loop does not tell: the host does not see what a device's time goes into.

        loop: None where nothing was drawn; the phases are then those of the host's loop.
        """
        told = ("device",) if loop == "device" else ("target", "draft", "verify", "other")
        return {phase: spent if phase in told else None for phase, spent in self.seconds.items()}

    @property
    def rounds_with_drafts(self) -> int:
        """Rounds of an image that proposed anything: each of them evaluates its first draft."""
        return int(self.attempts[:1].sum())

    @property
    def mean_acceptance_length(self) -> float:
        """Tokens per round, the resampled or bonus token included: plain decoding has 1.00. NaN before any round."""
        rounds = int(self.rounds.sum())
        return 1.0 + int(self.accepts.sum()) / rounds if rounds else float("nan")

    @property
    def acceptance_by_position(self) -> list[float]:
        """Share of accepted among evaluated drafts at each window index; NaN where none was."""
        pairs = zip(self.accepts.tolist(), self.attempts.tolist(), strict=True)
        return [a / n if n else float("nan") for a, n in pairs]


@dataclass(frozen=True)
class Generation:
    """The result of one batch."""

    codes: Ints  # int64 [M, N], in the order of the model's positions
    statistics: Statistics
    loop: LoopTaken  # which loop ran: the host's, round by round, or the session's own
    graph_fallback_reason: str = ""  # why a device's rounds were no replays of one CUDA graph; empty if they were


class Stopwatch:
    """Attributes every moment to one phase: `lap` gives the time since the last lap to the phase it names."""

    def __init__(self, seconds: dict[str, float], clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._last = clock()

    def lap(self, phase: str) -> None:
        now = self._clock()
        self._seconds[phase] += now - self._last
        self._last = now
