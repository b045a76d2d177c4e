"""The page `/docs`: the OpenAPI document as plain HTML, without scripts and without anything from elsewhere.

FastAPI's own page loads its program from a CDN. Knows OpenAPI documents. Does not know which routes there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from coolsd_rt.limits import SEED

_STYLE = "/docs/style.css"
STYLE = """\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid #8884; }
code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
"""


def docs_page(document: dict[str, Any]) -> str:
    """Return the page of an OpenAPI document."""
    title = escape(document["info"]["title"])
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    parts = [f'<!doctype html><html lang="en"><head>{head}<link rel="stylesheet" href="{_STYLE}"></head><body>']
    parts += [f"<h1>{title}</h1><p>{escape(document['info']['description'])}</p>"]
    parts += ['<p>The same for programs: <a href="/openapi.json">openapi.json</a>.</p>']
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += _operation(document, f"{method.upper()} {path}", operation)
    return "".join([*parts, "</body></html>"])


def _operation(document: dict[str, Any], name: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{escape(name)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<h3>Body, <code>{escape(media)}</code></h3>"
        yield from _fields(content["schema"])
    yield "<h3>Answers</h3><table><tr><th>status</th><th>what</th><th>body</th></tr>"
    for status, answer in operation["responses"].items():
        bodies = ", ".join(sorted(_body(media, part) for media, part in answer.get("content", {}).items()))
        yield f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}</td><td>{bodies}</td></tr>"
    yield "</table>"
    parts = [operation.get("requestBody", {}), operation["responses"].get("200", {})]
    for shape in sorted(_shapes(document, parts)):
        yield f'<h3 id="{escape(shape)}">{escape(shape)}</h3>'
        yield from _fields(document["components"]["schemas"][shape])


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    yield "<table><tr><th>field</th><th>type</th><th>what</th></tr>"
    for name, field in schema.get("properties", {}).items():
        what = escape(field.get("description", "")) + (" Required." if name in required else "")
        yield f"<tr><td><code>{escape(name)}</code></td><td>{escape(_kind(field))}</td><td>{what}</td></tr>"
    yield "</table>"


def _body(media: str, part: dict[str, Any]) -> str:
    shape = _name(part.get("schema", {}))
    return f"<code>{escape(media)}</code>" + (f" {escape(shape)}" if shape else "")


def _kind(field: dict[str, Any]) -> str:
    """Return the type of a field in a few words."""
    if "anyOf" in field:
        return " or ".join("null" if branch.get("type") == "null" else _kind(branch) for branch in field["anyOf"])
    if "const" in field:
        return str(field["const"])
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    if name := _name(field):
        return name
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}"
    low, high = (_number(field[end]) if end in field else "" for end in ("minimum", "maximum"))
    ends = f" from {low} to {high}" if low and high else ""
    return f"{field.get('type', 'any value')}{ends}"


def _number(value: float) -> str:
    """Return a number in full: FastAPI's document has floats for the ends of integers, and rounds up the largest."""
    whole = int(value)
    return str(min(whole, int(SEED.high))) if whole == value else str(value)


def _name(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _shapes(document: dict[str, Any], node: Any) -> set[str]:
    """Return the names of all shapes that a part of the document leads to."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            if (name := _name(part)) and name not in found:
                found.add(name)
                waiting.append(document["components"]["schemas"][name])
    return found
