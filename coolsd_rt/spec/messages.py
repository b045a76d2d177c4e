"""Converts validation errors to messages: expected value, found value, and a suggestion for misspelled words.

Knows pydantic's error types and the schema of the validated model (`Spec` by default). Does not know files or YAML.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from coolsd_rt.renamed import new_name, old_name
from coolsd_rt.shown import show
from coolsd_rt.spec.model import Spec
from coolsd_rt.spec.places import Path, Problem

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a word",
    "finite_number": "a finite number",
    "tuple_type": "a list of numbers",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "string_pattern_mismatch": "lower-case letters, digits, - and _, at most 64, starting with a letter or digit",
}


Model = type[BaseModel]


@cache
def _schema(model: Model) -> dict[str, Any]:
    return model.model_json_schema()


def _section(model: Model, node: dict[str, Any], data: Any) -> dict[str, Any]:
    """Resolve references, and a union by the data's `kind`, to the schema of a plain section."""
    if "anyOf" in node:  # an optional section
        node = next((branch for branch in node["anyOf"] if "$ref" in branch), node)
    if "$ref" in node:
        return _section(model, _schema(model)["$defs"][node["$ref"].rsplit("/", 1)[1]], data)
    if "discriminator" in node:
        kind = data.get(node["discriminator"]["propertyName"]) if isinstance(data, dict) else None
        ref = node["discriminator"]["mapping"].get(kind) if isinstance(kind, str) else None
        return _section(model, {"$ref": ref}, data) if ref else {}
    return node


def known_keys(path: Path, data: Any, model: Model = Spec) -> list[str]:
    """Return the keys that the section at `path` may have. data: selects the branch of a union."""
    node = _section(model, _schema(model), data)
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
        named = node.get("additionalProperties") or {}  # a mapping with user-defined names
        node = _section(model, node.get("properties", {}).get(part, named), data)
    return list(node.get("properties", {}))


def suggestion(word: Any, known: list[str]) -> str:
    """Return `did you mean 'x'?`, or an empty string if no known word is similar."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6) if isinstance(word, str) else []
    return f"did you mean '{near[0]}'?" if near else ""


def _real_path(loc: Path, model: Model) -> Path:
    """Remove the tag that pydantic inserts after a union's key: (schedule, uniform, delta) -> (schedule, delta).

    Also removes the mark that it inserts after a key that is itself invalid.
    """
    loc = loc[:-1] if loc[-1:] == ("[key]",) else loc
    return (loc[0], *loc[2:]) if loc[:1] and loc[0] in _tags(model) and len(loc) > 1 else loc


def _words(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _sides(error: ErrorDetails, path: Path, data: Any, model: Model) -> tuple[str, str, str]:
    kind, value, ctx = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "spec":
        return ctx["expected"], ctx["found"], ctx["fix"]
    if kind == "missing":
        return "a value", "nothing", "this key is required"
    if kind == "extra_forbidden":
        known = known_keys(path[:-1], data, model)
        if name := new_name(path[-1], known):
            return name, str(path[-1]), f"the key was renamed: write '{name}'"
        return f"one of {', '.join(known)}", "an unknown key", suggestion(path[-1], known)
    if kind == "literal_error":
        choices = _words(ctx["expected"])
        expected = (f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]) if choices else ctx["expected"]
        return expected, show(value), suggestion(value, choices)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tagged = _tags(model)[path[0]]
        choices = _choices(str(path[0]), model)
        tag = value.get(tagged) if isinstance(value, dict) else value
        found = show(tag) if kind == "union_tag_invalid" else "nothing"
        return f"one of {', '.join(choices)}", found, suggestion(tag, choices)
    if kind in ("string_too_long", "string_too_short"):
        least, most = ctx.get("min_length"), ctx.get("max_length")
        return f"at most {most} characters" if least is None else f"at least {least} characters", f"{len(value)}", ""
    if kind == "too_short":
        return f"at least {ctx['min_length']} value", f"{ctx['actual_length']}", ""
    if len(path) == 1 and path[0] in _tags(model) and value in _choices(str(path[0]), model):
        return "a mapping", show(value), f"write {{{_tags(model)[path[0]]}: {value}}}"
    return _TYPES.get(kind, error["msg"]), show(value), ""


@cache
def _tags(model: Model) -> dict[str | int, str]:
    """Return the sections that are unions, with the key that distinguishes their branches."""
    sections = _schema(model)["properties"].items()
    return {name: node["discriminator"]["propertyName"] for name, node in sections if "discriminator" in node}


def _choices(section: str, model: Model) -> list[str]:
    """Return a union's tags in the order of the models (pydantic's table is sorted)."""
    names = [branch["$ref"].rsplit("/", 1)[1] for branch in _schema(model)["properties"][section]["oneOf"]]
    nodes = [_schema(model)["$defs"][name]["properties"][_tags(model)[section]] for name in names]
    return [choice for node in nodes for choice in node.get("enum", [node.get("const")])]


def problems_of(error: ValidationError, data: Any, model: Model = Spec) -> list[Problem]:
    """Return all problems of a validation, with line 0: the caller knows the lines."""
    out = []
    items = error.errors(include_url=False)
    for item in items:
        path = _real_path(item["loc"], model)
        if item["type"] == "too_short" and any(
            _real_path(other["loc"], model)[: len(path)] == path for other in items if other is not item
        ):
            continue  # the items are invalid, which is reported already
        if item["type"] == "missing" and isinstance(item["input"], dict) and old_name(path[-1], item["input"]):
            continue  # present under its former name, which is reported separately
        if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
            path = (*path, _tags(model)[path[0]])
        expected, found, fix = _sides(item, path, data, model)
        out.append(Problem(0, path, expected, found, fix))
    return out
