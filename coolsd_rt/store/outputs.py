"""Single files that a user names for a result: never replaced without `--overwrite`.

    1. `check_output` before the work: the name is free, or may be replaced, and its folder can be written.
    2. `write_output` after it: the file appears whole, under a name that is still free.

Knows the file system. Does not know what is written, nor the command line beyond the option's name in an error.
"""

from __future__ import annotations

import os
from pathlib import Path

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import read_bytes, why_unusable
from coolsd_rt.store.atomic import NameTaken, check_folder, disk_errors, existing, write_atomic


def is_taken(path: Path) -> bool:
    """Whether the name is in use, by a broken link too."""
    return os.path.lexists(path)


def check_output(path: Path, option: str, *, overwrite: bool = False) -> None:
    """Find out before the work whether a result can be written to `path`. option: what named it, such as "--out".

    Raises:
        UserError: something is there and `overwrite` is off, or it is no plain file, which is never replaced; the
            folder's place is taken by a file.
        CoolsdError: the folder cannot be written.
    """
    check_folder(path.parent)
    if is_taken(path):
        kind = why_unusable(path) if path.exists() else ""
        if kind:
            fix = "name a file in it" if path.is_dir() else "name another file"
            raise UserError(f"{option} {path}", expected="a file", found=kind, fix=fix)
        if not overwrite:
            error = NameTaken(path)
            raise UserError(f"{option} {path}", expected=error.expected, found=error.found, fix=error.fix)
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Raise CoolsdError unless files can be made in a folder, or in the one that it would be made in."""
    there = existing(folder.absolute())
    if not os.access(there, os.W_OK | os.X_OK):
        found = f"one that is read-only ({there})"
        raise CoolsdError(str(folder), expected="a folder that can be written", found=found, fix="choose another place")


def write_output(path: Path, data: bytes, *, overwrite: bool = False) -> bool:
    """Write a result, whole or not at all, with the folders above it; returns whether anything was written.

    A file with the same bytes is left alone. Raises UserError: another file has the name by now and `overwrite` is off.
    CoolsdError: no space, a folder that cannot be written.
    """
    with disk_errors(path):
        if has_bytes(path, data):
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data, replace=overwrite)
    return True


def has_bytes(path: Path, data: bytes) -> bool:
    """Whether a plain file of exactly these bytes is there."""
    if why_unusable(path):
        return False
    try:
        return path.stat().st_size == len(data) and read_bytes(path, "a file", len(data)) == data
    except (OSError, CoolsdError):  # one that cannot be read, or grew, is another
        return False
