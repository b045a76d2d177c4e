"""A time limit for what must not wait: a test that would hang fails instead."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest


@contextmanager
def at_once(what: str, seconds: int = 60) -> Iterator[None]:
    """Fail if the block takes longer. Generous: a shared machine may be slow, and a pipe is waited for for ever."""

    def ring(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"{what}: hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
