"""Text and values as an error shows them: short, on one line, and of characters that print.

Knows Python's and JSON's own notation. Does not know which error it is for.
"""

from __future__ import annotations

import json
import numbers
from typing import Any

_SHOWN = 60  # characters


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


def shown(value: Any) -> str:
    """A wrong value as Python writes it. Python refuses to print integers of more than 4300 digits."""
    if isinstance(value, numbers.Number) and hasattr(value, "item"):  # NumPy's as Python's: 1.5, not np.float64(1.5)
        value = value.item()
    try:
        return shorten(" ".join(repr(value).split()))
    except ValueError:
        return "a number of thousands of digits"


def show(value: Any) -> str:
    """A wrong value as it stands in YAML or JSON."""
    try:
        return shorten(json.dumps(value, ensure_ascii=False, default=shown))
    except ValueError:  # an integer of more than 4300 digits
        return shown(value)
