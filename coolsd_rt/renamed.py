"""Keys of before and their names today, for files that were written before: an error that says the new name.

Knows words. Does not know which file has them: who reads one asks whether the new name would be welcome there.
"""

from __future__ import annotations

from collections.abc import Collection

KEYS = {"pictures": "images"}
"""Old key to new, of sweeps (`images`, `quality.frechet.images`), of references.json, and of kept results."""


def new_name(key: object, known: Collection[str]) -> str:
    """Today's name of a key that was renamed, if the place takes it (`known`: the keys it has); else nothing."""
    name = KEYS.get(key, "") if isinstance(key, str) else ""
    return name if name in known else ""


def old_name(key: object, found: Collection[object]) -> str:
    """The name of before that stands in `found` where `key` is missing; nothing if there is none."""
    return next((old for old, new in KEYS.items() if new == key and old in found), "")
