"""Reads JSON files of third-party models strictly: each key that is used exists, has its type, and is in range.

Knows pydantic and the conversion of its errors. Does not know which files there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coolsd_rt.errors import UserError
from coolsd_rt.files import read_json
from coolsd_rt.limits import CONFIG_BYTES, FOREIGN_VOCABULARY, FOREIGN_WIDTH, HEADS, LAYERS
from coolsd_rt.shown import shorten

FETCH_AGAIN = "fetch or save the folder again"
Width = Annotated[int, Field(ge=1, le=int(FOREIGN_WIDTH.high))]
Layers = Annotated[int, Field(ge=1, le=int(LAYERS.high))]
Heads = Annotated[int, Field(ge=1, le=int(HEADS.high))]
Rows = Annotated[int, Field(ge=1, le=int(FOREIGN_VOCABULARY.high))]
TokenId = Annotated[int, Field(ge=0, lt=int(FOREIGN_VOCABULARY.high))]


class Schema(BaseModel):
    """Base of schemas for another library's JSON file. It lists the keys that are used; other keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=())


S = TypeVar("S", bound=Schema)


def read_config(path: Path, schema: type[S], what: str, *, limit: int = CONFIG_BYTES, fix: str = FETCH_AGAIN) -> S:
    """Read a JSON file as `schema`. what: describes the file, such as "the config of a T5 encoder".

    Raises UserError if the file is unreadable, or a key is missing, of another type, or out of range.
    """
    return validate(path, schema, read_json(path, what, limit, fix=fix), what, fix=fix)


def validate(path: Path, schema: type[S], data: Any, what: str, *, fix: str = FETCH_AGAIN) -> S:
    """Validate `data`, read from `path`, as `schema`. Raises UserError for the first wrong key."""
    if not isinstance(data, dict):
        raise UserError(str(path), expected=f"{what}, a JSON object", found=_shown(data), fix=fix)
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = shorten(".".join(str(part) for part in first["loc"]), 120)
        where = f"{path}: {key}" if key else str(path)
        if first["type"] == "missing":
            expected, found = f"{what} with this key (no default is used)", "none"
        else:
            expected, found = _expected(first["type"], first.get("ctx", {}), first["msg"]), _shown(first["input"])
        raise UserError(where, expected=expected, found=found, fix=fix) from error


_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "a text"}


def _expected(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind == "greater_than_equal":
        return f"at least {context['ge']}"
    if kind == "less_than_equal":
        return f"at most {context['le']}"
    if kind == "greater_than":
        return f"more than {context['gt']}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind in ("dict_type", "model_type"):
        return "a JSON object"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_too_short":
        return f"a text of at least {context['min_length']} characters"
    if kind == "string_too_long":
        return f"a text of at most {context['max_length']} characters"
    words = _TYPES.get(kind.split("_")[0]) if kind.split("_")[-1] in ("type", "parsing", "float", "number") else None
    return words or message.removeprefix("Input should be ").removeprefix("a valid ")


def _shown(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return f"'{shorten(value)}'" if isinstance(value, str) else shorten(repr(value), 40)
