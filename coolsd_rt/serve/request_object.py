"""What the bodies of all requests have in common: a JSON object, names, and a seed or none.

Knows JSON. Does not know fields.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from pydantic import Field

from coolsd_rt.files import JsonError, parse_json
from coolsd_rt.serve.api_errors import invalid

_RANDOM_SEEDS = 2**53 - 16  # clients in JavaScript read larger numbers as others
Word = Annotated[str, Field(max_length=256)]


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body. Raises ApiError."""
    try:
        data = parse_json(body)
    except JsonError as error:
        raise invalid(None, "a JSON object", str(error)) from None
    if not isinstance(data, dict):
        raise invalid(None, "a JSON object", "another JSON value")
    return data


def seed_or_random(seed: int | None) -> int:
    """Return a seed: the one that is given, or a random one."""
    return seed if seed is not None else secrets.randbelow(_RANDOM_SEEDS)
