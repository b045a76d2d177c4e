"""Two parts of one kind that become one: the images of the second follow those of the first.

Knows types. Does not know what the parts hold.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def mates(own: T, other: object | None) -> list[T]:
    """Return `own` and, unless it is None, `other`. Raises TypeError if the other is of another type."""
    if other is None:
        return [own]
    if not isinstance(other, type(own)):
        raise TypeError(f"other: expected {type(own).__name__}, found {type(other).__name__}")
    return [own, other]
