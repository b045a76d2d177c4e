"""Keys that were renamed, for files written by earlier versions: errors name the new key.

Knows words. Does not know which file has them: the reader of a file asks whether the new name is valid there.
"""

from __future__ import annotations

from collections.abc import Collection

KEYS = {"pictures": "images"}
"""Old key to new key, in sweeps (`images`, `quality.frechet.images`), references.json, and stored results."""


def new_name(key: object, known: Collection[str]) -> str:
    """Return the new name of a renamed key, if the place accepts it (`known`: its keys); else an empty string."""
    name = KEYS.get(key, "") if isinstance(key, str) else ""
    return name if name in known else ""


def old_name(key: object, found: Collection[object]) -> str:
    """Return the former name of the missing key `key` if it is in `found`; else an empty string."""
    return next((old for old, new in KEYS.items() if new == key and old in found), "")
