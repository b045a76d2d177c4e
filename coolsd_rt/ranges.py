"""Numeric ranges: membership, and the error message for a value outside.

Knows Python's and NumPy's numbers. Does not know which ranges there are: `limits` does.
"""

from __future__ import annotations

import numbers
import operator
from dataclasses import dataclass
from typing import Any

from coolsd_rt.errors import UserError
from coolsd_rt.shown import shown


def _text(number: float) -> str:
    """Format a number as people type it: 65536, 1e6, 0.001, 2^64-1."""
    if isinstance(number, int):
        return str(number) if abs(number) < 1 << 32 else f"2^{number.bit_length()}{'-1' if number & 1 else ''}"
    return f"{number:g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`, both included. `whole`: integers only."""

    low: float
    high: float
    whole: bool = False

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    @property
    def said(self) -> str:
        """The expected value in an error message."""
        return f"a {'whole ' if self.whole else ''}number from {_text(self.low)} to {_text(self.high)}"

    def check(self, name: str, value: Any, fix: str = "") -> Any:
        """Return the value as a Python int or float; NumPy numbers are accepted.

        Raises UserError unless it is in the range.

        name: the user's name for the value. True and False are not numbers, and 1.0 is not an integer.
        """
        try:
            if isinstance(value, bool):
                raise TypeError
            number: Any = operator.index(value) if self.whole else self._real(value)
        except (TypeError, ValueError, OverflowError):
            raise UserError(name, expected=self.said, found=shown(value), fix=fix) from None
        if not self.low <= number <= self.high:
            raise UserError(name, expected=self.said, found=shown(number), fix=fix)
        return number

    @staticmethod
    def _real(value: object) -> float:
        if isinstance(value, int):  # of any size: float(10**400) raises OverflowError, a comparison does not
            return value
        if not isinstance(value, numbers.Real):
            raise TypeError
        return float(value)  # NaN and infinity are in no range


def whole(low: float, high: float) -> Range:
    """Return the range of integers from `low` to `high`, both included."""
    return Range(int(low), int(high), whole=True)
