"""The time of a check, and which part of it may begin something when.

Knows seconds. Does not know the parts.
"""

from __future__ import annotations

import time


class Clock:
    """Seconds since it was made, of `seconds` in all."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._begun = seconds, time.perf_counter()
        self.until = seconds  # the part under way begins nothing after this

    @property
    def spent(self) -> float:
        return time.perf_counter() - self._begun

    def give(self, share: float, due: float) -> None:
        """To a part: its share of all the time, and what those before it left of theirs, which is up to `due` of it."""
        self.until = min(self._seconds, max(self.spent + share * self._seconds, due * self._seconds))

    def late(self, needed: float = 0.0) -> str:
        """Why nothing that takes `needed` seconds may begin; empty if it may."""
        spent = self.spent
        if spent + needed <= self.until and spent < self.until:
            return ""
        takes = f", and it takes about {needed:g} s" if needed else ""
        return f"{max(0.0, self.until - spent):.0f} s are left to its part{takes}"
