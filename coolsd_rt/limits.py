"""Both ends of every number that a user or a file can give, stated once and used at every entrance.

Pure data. Does not know who asks: the spec's models, the command line, manifests and Python callers all read it here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


SPEC_BYTES = 4 << 20
PROMPTS_BYTES = 64 << 20
LINE_CHARACTERS = 100_000
RESULT_BYTES = 256 << 20
"""Most bytes of a spec's or a sweep's file, of a file of prompts, and of a file of results that is read as a whole;
and most characters of one prompt in a file."""
