"""Sums over the batches of a request: their statistics, and the loop that all of them took.

Knows counts. Does not know how a batch is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from coolsd_rt.errors import CoolsdError
from coolsd_rt.runtime.statistics import LoopTaken, Statistics


def one_loop(loops: Iterable[LoopTaken]) -> LoopTaken | None:
    """Return the loop that all batches of a request ran; None without batches.

    Raises CoolsdError if the batches ran different loops, because their figures cannot be added.
    """
    found = sorted(set(loops))
    if len(found) > 1:
        raise CoolsdError("the loop of a request", expected="the same in every batch", found=" and ".join(found))
    return found[0] if found else None


def total(parts: Sequence[Statistics], length: int) -> Statistics:
    """Sum the statistics of batches with one draft length. Rounds keep one entry per image."""
    whole = Statistics.empty(0, length)
    for part in parts:
        whole.rounds = np.concatenate([whole.rounds, part.rounds])
        whole.accepted_histogram += part.accepted_histogram
        whole.attempts += part.attempts
        whole.accepts += part.accepts
        whole.degenerate += part.degenerate
        whole.draft_tokens += part.draft_tokens
        whole.repeats += part.repeats
        whole.add_distance(part.distance)
        whole.seconds_prefix += part.seconds_prefix
        for drafts, times in part.round_seconds.items():
            whole.round_seconds.setdefault(drafts, []).extend(times)
        for phase, seconds in part.seconds.items():
            whole.seconds[phase] += seconds
    return whole
