"""Parses YAML text to plain data with the line of every key.

Knows the YAML 1.2 core schema (as editors do: `no` is a string, `1e-3` a number, 010 is ten), one document, no anchors
or tags. Does not know which keys a spec has.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from coolsd_rt.spec.places import KEYS, Path, Problem, SourceError, YamlText

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

_PLAIN: list[tuple[str, str, str]] = [
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("tag:yaml.org,2002:int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
]


class _Loader(yaml.SafeLoader):
    """Composes nodes only, with the scalars of the core schema. Never constructs an object from a tag."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own attribute)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            # A spec needs neither, and a few nested aliases can expand to a billion values.
            raise SourceError(line, "no anchors or aliases (& and *)", f"{event.anchor!r}", "write the value out")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SourceError(line, f"at most {MAX_DEPTH} levels of nesting", "more")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, _pattern, _first in _PLAIN:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), ["" if c == "\0" else c for c in _first])


_HALF = re.compile("[\ud800-\udfff]")


def _number(tag: str, text: str) -> int | float:
    if tag.endswith("int"):
        sign, digits = (-1, text[1:]) if text[:1] == "-" else (1, text.lstrip("+"))
        base = {"0o": 8, "0x": 16}.get(digits[:2].lower(), 10)
        return sign * int(digits[2:] if base != 10 else digits, base)
    word = text.lower().lstrip("+-")
    if word in (".inf", ".nan"):
        return math.nan if word == ".nan" else math.copysign(math.inf, -1 if text[0] == "-" else 1)
    return float(text)


def _scalar(node: yaml.ScalarNode) -> Any:
    line, text = node.start_mark.line + 1, str(node.value)
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    try:
        match kind:
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return {"true": True, "false": False}[text.lower()]
            case "int" | "float":
                return _number(node.tag, text)
    except (ValueError, KeyError) as e:
        raise SourceError(line, f"a value of type {kind}", repr(text[:60])) from e
    raise SourceError(line, "no tags", node.tag, "write the plain value")


def _check_text(node: yaml.Node) -> None:
    """Raise SourceError at an escape such as \\ud800, which is not a character and cannot be encoded."""
    if isinstance(node, yaml.ScalarNode) and _HALF.search(str(node.value)):
        raise SourceError(node.start_mark.line + 1, "text", "half of a surrogate pair", "write the character itself")


def _convert(node: yaml.Node, path: Path, source: YamlText) -> Any:
    source.lines.setdefault(path, node.start_mark.line + 1)
    _check_text(node)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_convert(child, (*path, i), source) for i, child in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode) or node.tag != "tag:yaml.org,2002:map":
        raise SourceError(node.start_mark.line + 1, "no tags", node.tag, "write the plain value")
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        _check_text(key_node)
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str) or not key:
            raise SourceError(line, "a key that is a word", "another kind of key")
        here = (*path, key)
        if key in data:
            first = source.lines[here]
            source.problems.append(Problem(line, here, "each key once", f"it again (first on line {first})"))
            continue
        source.lines[here] = line
        data[key] = _convert(value_node, here, source)
    return data


def _text(raw: bytes) -> str:
    if len(raw) > MAX_BYTES:
        raise SourceError(0, f"at most {MAX_BYTES // 1024} KiB of YAML", f"{len(raw) // 1024} KiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw[: e.start].count(b"\n") + 1
        raise SourceError(line, "UTF-8 text", f"byte 0x{raw[e.start]:02x}", "save the file as UTF-8") from e


def parse(raw: bytes, begins: str = KEYS) -> YamlText:
    """Parse the bytes of a YAML file. begins: its first keys, shown in the error for an empty file.

    Raises:
        SourceError: not UTF-8, not YAML, empty, too deep, too large, or with an alias or a tag.
    """
    text = _text(raw)
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        found = " ".join(str(e.problem or e.context).split()).removeprefix("found ").replace("unexpected ", "")
        raise SourceError(mark.line + 1 if mark else 1, "valid YAML", found) from e
    except yaml.reader.ReaderError as e:
        line = text[: e.position].count("\n") + 1
        raise SourceError(line, "printable text", f"the character {e.character!r}") from e
    finally:
        if loader is not None:
            loader.dispose()
    if node is None:
        raise SourceError(0, f"a mapping with {begins}, ...", "an empty file")
    source = YamlText(None)
    source.data = _convert(node, (), source)
    return source
