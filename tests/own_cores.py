"""A share of the cores for each worker of pytest-xdist, and all that it starts.

Threads of two workers on the same cores wait for each other: an image then takes several times the processor's time.
Knows numbers of cores. Does not know the tests; where there is no such share (macOS), nothing happens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

ALL = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()
"""The cores of this process when it began."""


def share(own: int, workers: int) -> set[int]:
    """The cores of worker `own` of `workers`; with fewer cores than workers, one that others have too."""
    cores = sorted(ALL)
    return set(cores[own % workers :: workers] or cores[own % len(cores) :][:1])


def take_share(own: int, workers: int) -> None:
    """From here on, in this process and those that it starts."""
    if ALL:
        os.sched_setaffinity(0, share(own, workers))


@contextmanager
def all_cores() -> Iterator[None]:
    """For what needs more than a share: a cluster with two replicas has a core for each."""
    if not ALL:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ALL)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
