"""Serialises calls on an engine that several threads share. Knows threads; does not know what a call does."""

from __future__ import annotations

import threading

from coolsd_rt.errors import UserError


class Turns:
    """A lock that raises an error, instead of deadlocking, if the thread already holds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None

    def take(self) -> None:
        """Wait for the turn. Raises UserError if this thread already holds it."""
        if self._owner == threading.get_ident():
            expected, found = "no other call of this thread under way", "an open stream, or a callback that draws"
            fix = "exhaust the stream or close it first"
            raise UserError("the pipeline", expected=expected, found=found, fix=fix)
        self._lock.acquire()
        self._owner = threading.get_ident()

    def give(self) -> None:
        """End the turn. May be called from any thread."""
        self._owner = None
        self._lock.release()
