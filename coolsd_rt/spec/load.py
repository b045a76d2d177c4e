"""Loads a spec file: a validated spec with its files found, or all of its errors.

Knows paths and the lines of errors. Does not open the files that a spec names.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from coolsd_rt.errors import UserError
from coolsd_rt.files import LINK_FIX, inside, read_bytes, why_unusable
from coolsd_rt.limits import SPEC_BYTES
from coolsd_rt.spec.messages import problems_of
from coolsd_rt.spec.model import Spec
from coolsd_rt.spec.origins import FILES
from coolsd_rt.spec.places import KEYS, Problem, SourceError, YamlText
from coolsd_rt.spec.places import Path as KeyPath

M = TypeVar("M", bound=BaseModel)
_SHOWN = 60  # most characters of a key in a message


def dotted(path: KeyPath) -> str:
    """Format a key path: (schedule, values, 2) -> schedule.values[2]."""
    text = ""
    for key in path:
        part = key if isinstance(key, int) or len(key) <= _SHOWN else f"{key[: _SHOWN - 3]}..."
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class SpecError(UserError):
    """All errors of one spec. `problems` has one error each; the text has one line each.

    one_line: several problems are numbered on one line instead, for values of a call that are in no file.
    """

    def __init__(self, problems: Sequence[UserError], *, one_line: bool = False) -> None:
        self.problems, self._one_line = tuple(problems), one_line
        first = problems[0]
        super().__init__(first.what, expected=first.expected, found=first.found, fix=first.fix)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems]
        if not self._one_line or len(lines) == 1:
            return "\n".join(lines)
        return f"{len(lines)} problems: " + "; ".join(f"({place}) {line}" for place, line in enumerate(lines, 1))


@dataclass(frozen=True)
class LoadedSpec:
    """A spec with its location. `files` maps a spec key (`target.weights`) to its resolved path."""

    spec: Spec
    path: Path
    folder: Path
    files: dict[str, Path]
    lines: dict[KeyPath, int]

    def error(self, key: str, expected: str, found: str, fix: str = "") -> UserError:
        """Return an error with the line of a key.

        For errors found later, such as `draft.length` above the image's tokens.
        """
        line = YamlText(None, self.lines).line(tuple(key.split(".")))
        return UserError(f"{self.path}:{line}: {key}", expected=expected, found=found, fix=fix)

    def check_length(self, tokens: int) -> None:
        """Raise UserError if the draft is longer than the image. tokens: image tokens of one image."""
        if self.spec.draft.length > tokens:
            key, depth = ("draft.length", "") if self.spec.tree is None else ("draft.tree", "depths, ")
            raise self.error(key, f"{depth}at most the image's {tokens} tokens", str(self.spec.draft.length))


def as_error(path: Path, problem: Problem) -> UserError:
    """Convert a problem of the file at `path` to an error for the user."""
    where = f"{path}:{problem.line}" if problem.line else str(path)
    what = f"{where}: {dotted(problem.path)}" if problem.path else where
    return UserError(what, expected=problem.expected, found=problem.found, fix=problem.fix)


def _read(path: Path) -> bytes:
    near, fix = path.parent, ""
    if why_unusable(path) == "nothing" and why_unusable(near) == "a folder":
        names = ", ".join(sorted(str(p) for p in near.glob("*.yaml"))[:5])
        fix = f"there is: {names}" if names else ""
    return read_bytes(path, "a spec file", SPEC_BYTES, fix=fix)


def _find_files(spec: Spec, file: Path, source: YamlText, must: bool) -> tuple[dict[str, Path], list[Problem]]:
    files, problems = {}, []
    folder = file.parent
    root = folder.resolve()
    made = {FILES[name] for name in FILES if getattr(spec.sources, name) is not None}
    for key, name in spec.file_names().items():
        where: KeyPath = tuple(key.split("."))
        line = source.line(where)
        path = inside(root, name)
        if path is None:
            found = f"{name}, a link to another location"
            problems.append(Problem(line, where, f"a file inside {folder}", found, LINK_FIX))
        elif absence := why_unusable(path):
            if must:
                first = absence == "nothing" and key in made
                fix = f"make it first: coolsd-rt convert {shlex.quote(str(file))}" if first else ""
                problems.append(Problem(line, where, f"a file at {folder / name}", absence, fix))
        else:
            files[key] = path
    return files, problems


def read_model(path: Path, model: type[M], begins: str) -> tuple[M | None, YamlText, list[Problem]]:
    """Read a YAML file as a strict model.

    Returns the model (None if invalid), the YAML text with its lines, and problems.

    begins: the first keys, shown in the error for an empty file. Raises as `load_spec` does if the file cannot be read.
    """
    from coolsd_rt.spec.yaml_text import parse  # an engine that runs has no YAML to parse

    try:
        source = parse(_read(path), begins)
    except SourceError as e:
        raise SpecError([as_error(path, e.problem)]) from e
    problems, found = list(source.problems), None
    if isinstance(source.data, dict):
        try:
            found = model.model_validate(source.data)
        except ValidationError as e:
            problems += [replace(p, line=source.line(p.path)) for p in problems_of(e, source.data, model)]
    else:
        problems.append(Problem(1, (), f"a mapping with {begins}, ...", type(source.data).__name__))
    return found, source, problems


def is_spec(path: Path) -> bool:
    """Whether a path names a spec, by its extension; the file need not exist."""
    return path.suffix in (".yaml", ".yml")


def load_spec(path: str | Path, *, check_files: bool = True) -> LoadedSpec:
    """Read and check a spec.

    check_files: if off, the files that a spec names may be missing (`files` then has only those that exist). A link out
    of the folder is refused in either case.

    Raises:
        UserError: the file cannot be read, or is not YAML.
        SpecError: all problems of its contents, in the order of their lines.
    """
    path = Path(path)
    spec, source, problems = read_model(path, Spec, KEYS)
    files: dict[str, Path] = {}
    if spec is not None:
        files, missing = _find_files(spec, path, source, check_files)
        problems += missing
    if spec is None or problems:
        raise SpecError([as_error(path, p) for p in sorted(problems, key=lambda p: p.line)])
    return LoadedSpec(spec, path, path.parent, files, source.lines)
