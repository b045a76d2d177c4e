"""What no code can be faster than: a plain read of the bytes that a step needs, at this machine's own speed.

The speed is that of a sum over one large array of float32 by torch, with as many threads as the contenders have: the
fastest of a few, once in each turn, and the median of these. A model whose matrices fit into the processor's cache can
be faster than this floor.

Knows an array. Does not know models or steps (`models.traffic` counts their bytes).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

LARGE = 1 << 29  # bytes: larger than a cache
READS = 3


def bandwidth(threads: int, size: int = LARGE, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return bytes a second that `threads` threads read from memory. size: bytes of the array."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        array = torch.ones(size // 4)
        array.sum()  # finds its pages
        return size / min(_seconds(array, clock) for _ in range(READS))
    finally:
        torch.set_num_threads(before)


def _seconds(array: torch.Tensor, clock: Callable[[], float]) -> float:
    began = clock()
    array.sum()
    return clock() - began


def floor_seconds(step_bytes: int, bytes_per_second: float) -> float:
    """Return the seconds that a step of so many bytes takes at least."""
    return step_bytes / bytes_per_second
