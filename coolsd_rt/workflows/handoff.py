"""Passes items from one thread to another, one at a time, until either side stops.

Knows threads. Does not know the items.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Cancelled(Exception):
    """Raised in the producing thread when the consumer has stopped."""


class Handoff(Generic[T]):
    """A queue of one item. The producer waits while it is full; the consumer waits while it is empty."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._cancelled = self._ended = False
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise Cancelled if the consumer has stopped."""
        if self._cancelled:
            raise Cancelled

    def put(self, item: T) -> None:
        """Hand over an item. Raises Cancelled if the consumer has stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled or not self._items)
            self.check()
            self._items.append(item)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Signal that no more items follow.

        The consumer receives the remaining item first, then `error` if there is one.
        """
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def get(self) -> T:
        """Return the next item. Raises StopIteration if there is none, or the error passed to `end`."""
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled or self._ended or bool(self._items))
            if self._items and not self._cancelled:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None and not self._cancelled:
                raise self._error
            raise StopIteration

    def cancel(self) -> None:
        """Stop consuming: the producer's next `put` or `check` raises Cancelled."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()
