"""Writes result files that a user names, which are never replaced without `--overwrite`.

    1. `check_output` before the work: the name is free or may be replaced, and the folder is writable.
    2. `write_output` after the work: writes the file atomically if the name is still free.

Knows the file system. Does not know the content, or the command line beyond the option's name in an error.
"""

from __future__ import annotations

import os
from pathlib import Path

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import read_bytes, why_unusable
from coolsd_rt.store.atomic import NameTaken, check_folder, disk_errors, existing, write_atomic


def is_taken(path: Path) -> bool:
    """Whether the name exists, including as a broken link."""
    return os.path.lexists(path)


def check_output(path: Path, option: str, *, overwrite: bool = False) -> None:
    """Check, before the work starts, that a result can be written to `path`.

    option: how the user named it, such as "--out".

    Raises:
        UserError: `path` exists and `overwrite` is off, or is not a plain file, which is never replaced; or a file
            exists where its folder should be.
        CoolsdError: the folder is not writable.
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
    """Raise CoolsdError unless files can be created in `folder`, or in the nearest existing folder above it."""
    there = existing(folder.absolute())
    if not os.access(there, os.W_OK | os.X_OK):
        found = f"one that is read-only ({there})"
        raise CoolsdError(str(folder), expected="a folder that can be written", found=found, fix="choose another place")


def write_output(path: Path, data: bytes, *, overwrite: bool = False) -> bool:
    """Write a result atomically, creating its folders. Returns whether anything was written.

    A file with the same bytes is left unchanged. Raises UserError if another file has the name by now and `overwrite`
    is off, CoolsdError if the disk is full or the folder is not writable.
    """
    with disk_errors(path):
        if has_bytes(path, data):
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data, replace=overwrite)
    return True


def has_bytes(path: Path, data: bytes) -> bool:
    """Whether `path` is a plain file with exactly these bytes."""
    if why_unusable(path):
        return False
    try:
        return path.stat().st_size == len(data) and read_bytes(path, "a file", len(data)) == data
    except (OSError, CoolsdError):  # unreadable, or larger: not the same
        return False
