"""What a page names of the code: whether a file has a function, class, method or constant of that name."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import coolsd_rt

PACKAGE = Path(coolsd_rt.__file__).parent
ROOT = PACKAGE.parent


@functools.cache
def names_of(path: Path) -> frozenset[str]:
    """Names that a module defines at its top level, and `Class.member` of its classes."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        found |= _names(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for part in node.body for name in _names(part)}
    return frozenset(found)


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.AnnAssign):
        return {node.target.id} if isinstance(node.target, ast.Name) else set()
    if isinstance(node, ast.Assign):
        parts = [part for target in node.targets for part in ast.walk(target)]
        return {part.id for part in parts if isinstance(part, ast.Name)}
    return set()


def why_missing(reference: str, base: Path = PACKAGE) -> str:
    """What is wrong with `path` or `path: name`, below `base`; nothing if it is there."""
    path, _, name = (part.strip() for part in reference.partition(":"))
    if not (base / path).exists():
        return f"{reference}: no {base.name}/{path}"
    if name and name not in names_of(base / path):
        return f"{reference}: {path} has no {name}"
    return ""
