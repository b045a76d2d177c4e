"""Sums over the batches of a request: their statistics, and the loop that all of them took.

Knows counts. Does not know how a batch is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from coolsd_rt.errors import CoolsdError
from coolsd_rt.runtime.statistics import LoopTaken, Statistics


def one_loop(loops: Iterable[LoopTaken]) -> LoopTaken | None:
    """The loop that all batches of a request took; None of no batch.

    Raises CoolsdError if there are two: a request has one loop, and figures of two do not add up.
    """
    found = sorted(set(loops))
    if len(found) > 1:
        raise CoolsdError("the loop of a request", expected="the same in every batch", found=" and ".join(found))
    return found[0] if found else None


def total(parts: Sequence[Statistics], length: int) -> Statistics:
    """The sum over batches of one draft length: counts and seconds add up, rounds stay one entry an image."""
    whole = Statistics.empty(0, length)
    for part in parts:
        whole.rounds = np.concatenate([whole.rounds, part.rounds])
        whole.accepted_histogram += part.accepted_histogram
        whole.attempts += part.attempts
        whole.accepts += part.accepts
        whole.degenerate += part.degenerate
        whole.draft_tokens += part.draft_tokens
        whole.seconds_prefix += part.seconds_prefix
        for drafts, times in part.round_seconds.items():
            whole.round_seconds.setdefault(drafts, []).extend(times)
        for phase, seconds in part.seconds.items():
            whole.seconds[phase] += seconds
    return whole
