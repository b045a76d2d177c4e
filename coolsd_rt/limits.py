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


OMEGA = Range(0.0, 1e6)
"""What a schedule is given: delta, beta, floor, an omega of a custom list, a factor of lantern_pp."""

LAW_OMEGA = Range(0.0, 1e12)
"""An omega of a law. A schedule with the mean delta has a first omega of up to L * delta; float32 holds far more."""

CONFIDENCE = Range(0.5, 0.999)
"""Of a one-sided bound: at a half there is no margin, beyond the other end the tails are not known well enough."""

DECAY = Range(0.0, 1e6)
"""nu of a schedule; above 800 or so every position after the first has an omega of 0, or 1 under `excess`."""
