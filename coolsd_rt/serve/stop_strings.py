"""Ends a text before the first string of a list, however the text comes.

A stop string may begin in one piece of the text and end in a later one: characters that may yet belong to one are held
back until that is known. What comes out depends on the text alone, not on where it was cut into pieces.

Knows characters. Does not know tokens or requests.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """A text that ends before the stop string that is complete first; the longest, if several end at one character.

    Attributes:
        text: what was returned so far.
        found: whether a stop string was found. Nothing is returned after it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """stops: none of them empty."""
        self._stops = sorted(stops, key=len, reverse=True)
        self._held = ""
        self.text = ""
        self.found = False

    @property
    def any(self) -> bool:
        """Whether there are stop strings."""
        return bool(self._stops)

    def more(self, piece: str, *, last: bool = False) -> str:
        """Return what a piece adds to the text. last: nothing follows, so that nothing is held back."""
        if self.found:
            return ""
        waiting, known = self._held + piece, len(self._held)
        new = self._before_stop(waiting, known)
        self.found = new is not None
        if new is None:
            held = 0 if last else self._open(waiting)
            new, self._held = waiting[: len(waiting) - held], waiting[len(waiting) - held :]
        self.text += new
        return new

    def _before_stop(self, waiting: str, known: int) -> str | None:
        """Return what comes before the stop string that is complete first, behind character `known`; None without."""
        ends = [(place + len(stop), -len(stop)) for stop in self._stops if (place := _first(waiting, stop, known)) >= 0]
        if not ends:
            return None
        end, length = min(ends)
        return waiting[: end + length]

    def _open(self, waiting: str) -> int:
        """Return the number of characters at the end that may be the beginning of a stop string."""
        longest = min(len(waiting), max((len(stop) for stop in self._stops), default=1) - 1)
        for count in range(longest, 0, -1):
            end = waiting[-count:]
            if any(len(stop) > count and stop.startswith(end) for stop in self._stops):
                return count
        return 0


def _first(text: str, stop: str, known: int) -> int:
    """Return where `stop` is first in a text; -1 if it is not. It is not among the first `known` characters."""
    return text.find(stop, max(0, known - len(stop) + 1))
