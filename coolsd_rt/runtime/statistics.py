"""Counts and times of a generation.

Knows counters and an injected clock. Does not know models or how a figure is shown.

Legend: M images, N image tokens, L draft length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from coolsd_rt.arrays import Bools, Ints

if TYPE_CHECKING:
    from coolsd_rt.runtime.state import RoundRecord

PHASES = ("target", "draft", "verify", "device", "other")  # device: the whole loop of a device
LoopTaken = Literal["host", "device"]


@dataclass
class Statistics:
    """Counts over all rounds of a batch. The first token of an image comes from the prefill and belongs to no round."""

    rounds: Ints  # [M] rounds of each image
    accepted_histogram: Ints  # [L + 1] rounds by number of accepted drafts
    attempts: Ints  # [L] rounds that evaluated draft i, after accepting all before it (forced ones included)
    accepts: Ints  # [L] rounds in which draft i was accepted
    degenerate: int = 0  # rejections that found no residual and drew from P
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    draft_tokens: int = 0  # number of drafts that counted, evaluated or not
    # Steps of the target behind the first of a round, summed over the unfinished images that were in them, also those
    # whose own drafts had been settled: of the rule per_position.
    repeats: int = 0
    # Of that rule: the bound of `coolsd_rt.runtime.position_round`, summed over all rounds; None under other rules.
    distance: float | None = None
    # Wall seconds of rounds that all images of the batch took part in, by the longest window (in drafts). On a device's
    # loop every window has L drafts, and the host knows only the mean: one entry per batch.
    round_seconds: dict[int, list[float]] = field(default_factory=dict)
    seconds_prefix: float = 0.0  # before the loop: encoding the condition and opening the session (`drawing.draw`)

    @staticmethod
    def empty(images: int, length: int) -> Statistics:
        """Return statistics of no rounds. length: draft length L."""
        rounds, histogram, attempts, accepts = (np.zeros(n, np.int64) for n in (images, length + 1, length, length))
        return Statistics(rounds, histogram, attempts, accepts)

    def record(self, accepted: Ints, num_drafts: Ints, degenerate: Bools, active: Bools, images: Ints) -> None:
        """Count one round of the batch. All arguments are [M']; only active images count.

        images: int64, which of the M images each of the M' is.
        """
        self.rounds[images] += active
        self.degenerate += int(np.count_nonzero(degenerate & active))
        self.draft_tokens += int(num_drafts[active].sum())
        for k, count in zip(accepted[active].tolist(), num_drafts[active].tolist(), strict=True):
            self.accepted_histogram[k] += 1
            self.accepts[:k] += 1
            self.attempts[: min(k + 1, count)] += 1

    def count_passes(self, record: RoundRecord) -> None:
        """Count the steps of the target behind the first of a round, and the distance of its tokens' law."""
        self.repeats += (record.steps - 1) * int(record.active.sum())
        if record.distance is not None:
            self.add_distance(float(record.distance[record.active].sum()))

    def add_distance(self, more: float | None) -> None:
        """Add the distance of other rounds, if they have one."""
        if more is not None:
            self.distance = more + (self.distance or 0.0)

    @property
    def tokens_per_pass(self) -> float:
        """Tokens per step of the target: tokens per round, if no round has more than one. NaN before any round."""
        rounds = int(self.rounds.sum())
        tokens = rounds + int(self.accepts.sum())
        return tokens / (rounds + self.repeats) if rounds else float("nan")

    @property
    def distance_per_token(self) -> float | None:
        """What a token adds to the bound on TV, under the rule per_position; None under others."""
        tokens = int(self.rounds.sum()) + int(self.accepts.sum())
        return None if self.distance is None else self.distance / tokens

    def time_round(self, drafts: int, seconds: float) -> None:
        """Record that a round whose longest window had `drafts` drafts took `seconds`."""
        self.round_seconds.setdefault(drafts, []).append(seconds)

    def seconds_by_phase(self, loop: LoopTaken | None) -> dict[str, float | None]:
        """Return `seconds`, with None for phases that the loop does not measure.

        The host cannot time phases inside a device. loop: None if nothing was drawn; the phases are then those of the
        host's loop.
        """
        told = ("device",) if loop == "device" else ("target", "draft", "verify", "other")
        return {phase: spent if phase in told else None for phase, spent in self.seconds.items()}

    @property
    def rounds_with_drafts(self) -> int:
        """Number of rounds, over all images, that proposed a draft. Each of them evaluates its first draft."""
        return int(self.attempts[:1].sum())

    @property
    def mean_acceptance_length(self) -> float:
        """Tokens per round, including the resampled or bonus token: 1.00 in plain decoding. NaN before any round."""
        rounds = int(self.rounds.sum())
        return 1.0 + int(self.accepts.sum()) / rounds if rounds else float("nan")

    @property
    def acceptance_by_position(self) -> list[float]:
        """Share of accepted among evaluated drafts at each window index; NaN where none was evaluated."""
        pairs = zip(self.accepts.tolist(), self.attempts.tolist(), strict=True)
        return [a / n if n else float("nan") for a, n in pairs]


@dataclass(frozen=True)
class Generation:
    """The result of one batch."""

    codes: Ints  # int64 [M, N], in the order of the model's positions; of a text, those up to its length
    statistics: Statistics
    loop: LoopTaken  # which loop ran: the host's, or the device's
    graph_fallback_reason: str = ""  # why a device's loop did not replay a CUDA graph; empty if it did
    lengths: Ints | None = None  # int64 [M], tokens of each text; None: all N, on a device's loop


class Stopwatch:
    """Assigns elapsed time to phases: `lap` adds the time since the last lap to the phase that it names."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._clock = clock
        self._last = clock()

    def lap(self, phase: str) -> None:
        """Add the seconds since the last lap to `phase`."""
        now = self._clock()
        self.seconds[phase] += now - self._last
        self._last = now

    def take(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call."""
        taken, self.seconds = self.seconds, dict.fromkeys(PHASES, 0.0)
        return taken
