"""Paths on the command line: one type per role of a path, so that a wrong path is refused before any work.

    READS       a plain file that is read             READS_OR_STDIN   the same; - is standard input
    SPEC        a spec's or a sweep's file            ENGINE           an engine's folder, or a spec where one is taken
    FOLDER      a folder that is read
    WRITES      a file that is written                WRITES_IN        a folder that is written into

A missing path is reported by the verb, whose message is more specific ("there is: ...").

Knows click and files. Does not know what is in any of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import click

from coolsd_rt.errors import UserError
from coolsd_rt.files import bad_name, check_target, is_stream, pipe_fix, special, why_unusable
from coolsd_rt.store.atomic import check_folder

Role = Literal["reads", "spec", "reads or stdin", "folder", "engine", "writes", "writes in"]

_EXPECTED: dict[Role, str] = {
    "reads": "a file", "spec": "a spec file", "reads or stdin": "a file, or - for standard input", "folder": "a folder",
    "engine": "an engine's folder, or a spec", "writes": "a file", "writes in": "a folder, or a path for a new folder",
}  # fmt: skip


class PathType(click.Path):
    """A path in one of the roles above. Raises UserError, which names the option."""

    def __init__(self, role: Role) -> None:
        super().__init__(path_type=Path)
        self.role = role

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path if it can have the role. Raises UserError, which names the option."""
        text = os.fsdecode(value)
        option = param.opts[0] if isinstance(param, click.Option) else ""
        if found := bad_name(text):
            what = option or (param.make_metavar(ctx) if param is not None and ctx is not None else "the path")
            raise UserError(what, expected=_EXPECTED[self.role], found=found)
        path = Path(text)
        if found := self._wrong(path):
            fix = pipe_fix(path) if self.role == "reads or stdin" else ""
            if self.role == "writes" and found == "a folder":
                fix = "name a file in it"
            raise UserError(f"{option} {path}".strip(), expected=_EXPECTED[self.role], found=found, fix=fix)
        if self.role in ("writes", "writes in"):
            check_folder(path if self.role == "writes in" else path.parent)
        return path

    def _wrong(self, path: Path) -> str:
        """What is there, if it cannot be what it should; empty where the verb may look."""
        found = why_unusable(path)
        if self.role == "reads or stdin" and is_stream(path):
            return ""
        if self.role == "writes":
            return self._wrong_target(path)
        if found == "nothing":
            return ""
        if self.role == "engine":
            return "" if found == "a folder" else special(path)
        if self.role in ("folder", "writes in"):
            return "" if found == "a folder" else found or "a file"
        return found

    def _wrong_target(self, path: Path) -> str:
        try:
            check_target(path)
        except UserError as error:
            return error.found
        return ""


READS = PathType("reads")
SPEC = PathType("spec")
READS_OR_STDIN = PathType("reads or stdin")
FOLDER = PathType("folder")
ENGINE = PathType("engine")
WRITES = PathType("writes")
WRITES_IN = PathType("writes in")
