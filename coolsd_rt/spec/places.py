"""The lines of a YAML text: its data, where each key stands, and the problems of a place.

Knows lines. Does not know YAML's syntax (`yaml_text` parses it), so that who reads no file imports no parser; nor which
keys a spec has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KEYS = "version, name, target"  # first keys of a spec

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One error and its place. `line` counts from 1; 0 means the whole file."""

    line: int
    path: Path
    expected: str
    found: str
    fix: str = ""


class SourceError(Exception):
    """The text is not valid YAML: one problem, and no data to validate."""

    def __init__(self, line: int, expected: str, found: str, fix: str = "") -> None:
        self.problem = Problem(line, (), expected, found, fix)
        super().__init__(found)


@dataclass
class YamlText:
    """Data with the line of every key and value. `problems` has errors that did not stop the parser."""

    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """Return the line of the key at `path`, or of its nearest ancestor that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)
