"""Validates JSON data strictly: unknown keys, wrong types and values out of range are errors; nothing is converted.

An error names the place, `contract.dims.tokens`, the expected value and the found one. Knows pydantic's errors. Does
not know which models there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from coolsd_rt.errors import CoolsdError
from coolsd_rt.files import read_json
from coolsd_rt.renamed import old_name
from coolsd_rt.shown import show

M = TypeVar("M", bound=BaseModel)
_SHOWN = 60  # characters of a key or a value in a message

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "tuple": "a list",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_LENGTHS = {
    "string_too_short": ("min_length", "at least", "characters"),
    "string_too_long": ("max_length", "at most", "characters"),
    "too_short": ("min_length", "at least", "values"),
    "too_long": ("max_length", "at most", "values"),
}
PATTERNS: dict[str, str] = {}
"""Regular expression to its description for error messages; filled by `pattern`."""


class Strict(BaseModel):
    """Base of strict models: no unknown keys, immutable, no type conversion ("4", 4.0 and true are not 4), no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


def pattern(text: str, words: str) -> str:
    """Register a regular expression with a description, `words`, for error messages. Returns the expression."""
    PATTERNS[text] = words
    return text


def dotted(place: tuple[Any, ...]) -> str:
    """Format a place: ("contract", "dims", "tokens") -> contract.dims.tokens; list items as [3]."""
    text = ""
    for part in place:
        word = str(part) if len(str(part)) <= _SHOWN else f"{str(part)[: _SHOWN - 3]}..."
        text += f"[{part}]" if isinstance(part, int) else f".{word}" if text else word
    return text


def complaint(error: ValidationError) -> tuple[str, str, str]:
    """Return the first problem of an error: its place, the expected value, the found value."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "missing" and (old := old_name(first["loc"][-1], first["input"])):
        return dotted((*first["loc"][:-1], old)), f"the key's new name, {first['loc'][-1]}", old
    place = first["loc"][:-1] if first["loc"][-1:] == ("[key]",) else first["loc"]
    return dotted(place), *_sides(first, place)


def _sides(error: ErrorDetails, place: tuple[Any, ...]) -> tuple[str, str]:
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "missing":
        return "a value", "nothing"
    if kind == "extra_forbidden":
        return "no such key", show(value)
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{words} {context[name]}", show(value)
    if kind in _LENGTHS:
        name, words, unit = _LENGTHS[kind]
        return f"{words} {context[name]} {unit}", str(context.get("actual_length", len(value or "")))
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"text like {context['pattern']}"), show(value)
    if kind == "literal_error":
        return str(context["expected"]), show(value)
    if kind == "value_error":
        return str(context["error"]), show(value)
    words = next((words for name, words in _TYPES.items() if kind.startswith(name)), "")
    return words or error["msg"].removeprefix("Input should be "), show(value)


def validate(
    data: Any, model: type[M], what: str, *, expected: str, fix: str = "", error: type[CoolsdError] = CoolsdError
) -> M:
    """Validate data as a model.

    what: where the data is. expected: what the data as a whole should be, such as "a manifest".

    Raises `error` for the first problem, with its place.
    """
    try:
        return model.model_validate(data)
    except ValidationError as e:
        place, wanted, found = complaint(e)
        if not place:
            raise error(what, expected=f"{expected}, {wanted}", found=found, fix=fix) from e
        raise error(f"{what}: {place}", expected=wanted, found=found, fix=fix) from e


def read_model(
    path: Path, model: type[M], expected: str, limit: int, *, fix: str = "", error: type[CoolsdError] = CoolsdError
) -> M:
    """Read a JSON file of at most `limit` bytes as a model.

    Raises `error` if unreadable, not JSON, or as `validate` does.
    """
    data = read_json(path, expected, limit, fix=fix, error=error)
    return validate(data, model, str(path), expected=expected, fix=fix, error=error)


def difference(wanted: Any, found: Any, place: tuple[Any, ...] = ()) -> tuple[str, str, str] | None:
    """Return the place and both values of the first difference in JSON data; None if both are equal."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        pairs = [((*place, k), wanted.get(k), found.get(k)) for k in {**wanted, **found}]
        if odd := next(((*place, k) for k in {**wanted, **found} if (k in wanted) != (k in found)), None):
            sides = ("a value", "nothing") if odd[-1] in wanted else ("no such key", show(found[odd[-1]]))
            return dotted(odd), *sides
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = [((*place, i), a, b) for i, (a, b) in enumerate(zip(wanted, found, strict=True))]
    elif type(wanted) is type(found) and wanted == found:
        return None
    else:
        return dotted(place), show(wanted), show(found)
    return next((odd for where, a, b in pairs if (odd := difference(a, b, where))), None)
