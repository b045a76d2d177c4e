"""Formats text and values for error messages, short, on one line, with printable characters only, and for tables.

Knows the notation of Python and JSON. Does not know which error or table it is for.
"""

from __future__ import annotations

import json
import numbers
from typing import Any

_SHOWN = 60  # most characters


def shorten(text: str, limit: int = _SHOWN) -> str:
    """`text` for an error message: on one line, at most `limit` characters, "..." where it was cut.

    Control characters and other characters that do not print are shown escaped, such as \\x1b or \\ud800.
    """
    pieces: list[str] = []
    room = limit
    for character in text:
        piece = character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        room -= len(piece)
        if room < 0:
            while sum(map(len, pieces)) > limit - 3:
                pieces.pop()
            return "".join(pieces) + "..."
        pieces.append(piece)
    return "".join(pieces)


def fixed(value: float, digits: int) -> str:
    """Format a number with that many digits behind the point; rounding that is a little below 0 is 0, not -0."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def shown(value: Any) -> str:
    """Format a wrong value in Python's notation. Python refuses to print integers of more than 4300 digits."""
    if isinstance(value, numbers.Number) and hasattr(value, "item"):  # print 1.5 instead of np.float64(1.5)
        value = value.item()
    try:
        return shorten(" ".join(repr(value).split()))
    except ValueError:
        return "a number of thousands of digits"


def show(value: Any) -> str:
    """Format a wrong value in YAML or JSON notation."""
    try:
        return shorten(json.dumps(value, ensure_ascii=False, default=shown))
    except ValueError:  # an integer of more than 4300 digits
        return shown(value)
