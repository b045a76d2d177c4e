"""A folder of results that survives a kill, and that the same command continues.

    folder/<head>.json            describes what the results are of
    folder/00000.npz, ...         one file per batch of work, each written atomically

Knows files, JSON and arrays. Does not know what is drawn or computed. Refuses a folder with other results before it
changes anything.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import MIB, is_clutter, open_plain, read_json, why_unusable
from coolsd_rt.limits import BATCH_BYTES, RESULT_BYTES
from coolsd_rt.shown import show
from coolsd_rt.store.arrays import parse_npy
from coolsd_rt.store.atomic import check_folder, disk_errors, write_atomic

Arrays = dict[str, NDArray[Any]]


def claim(folder: Path, name: str, head: Mapping[str, Any], what: str) -> None:
    """Create a folder for the results that `head` describes, or check that the folder is already for them.

    head: JSON data, stored as the file `name`. Raises UserError if the folder holds something else, CoolsdError if its
    head cannot be read.
    """
    wanted, path = json.loads(json.dumps(head)), folder / name
    check_folder(folder)
    if why_unusable(path) == "nothing":
        if there := sorted(p.name for p in folder.glob("[!.]*") if not is_clutter(p.name)):
            found = f"other files in it ({there[0]})"
            raise UserError(str(folder), expected=f"an empty folder, or {what}", found=found, fix="name another folder")
        save(path, (json.dumps(head, indent=2) + "\n").encode())
        return
    found_head = read_json(path, "JSON", RESULT_BYTES, fix="restore it, or name another folder", error=CoolsdError)
    if odd := _difference(found_head, wanted):
        raise UserError(str(folder), expected=what, found=f"one that differs in {odd}", fix="name another folder")


def _difference(found: Any, wanted: Any, path: str = "") -> str:
    """Return the first difference between two pieces of JSON data, with both values; empty if they are equal."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        pairs = [(f"{path}.{k}" if path else k, found.get(k), wanted.get(k)) for k in {**wanted, **found}]
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = [(f"{path}[{i}]", a, b) for i, (a, b) in enumerate(zip(found, wanted, strict=True))]
    elif found == wanted:
        return ""
    elif isinstance(found, list) and isinstance(wanted, list):
        return f"{path} ({len(found)} there, {len(wanted)} here)"
    else:
        return f"{path or 'everything'} ({show(found)} there, {show(wanted)} here)"
    return next((text for where, a, b in pairs if (text := _difference(a, b, where))), "")


def save(path: Path, data: bytes) -> None:
    """Write a file atomically, creating its folders.

    Raises CoolsdError: the disk is full, or the folder not writable.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)


@dataclass(frozen=True)
class Batches:
    """Numbered batches of arrays with the names `fields`. Without a folder nothing is stored.

    what: describes a batch in the error for a broken file.
    """

    folder: Path | None
    fields: tuple[str, ...]
    what: str

    def get(self, number: int, make: Callable[[], Arrays]) -> Arrays:
        """Return a batch from its file, or compute it with `make` and store it.

        Raises CoolsdError for a file that is not a batch.
        """
        path = None if self.folder is None else self.folder / f"{number:05d}.npz"
        if path is not None and why_unusable(path) != "nothing":
            return self._read(path)
        arrays = make()
        if path is not None:
            data = io.BytesIO()
            np.savez_compressed(data, allow_pickle=False, **arrays)
            save(path, data.getvalue())
        return arrays

    def _read(self, path: Path) -> Arrays:
        try:
            with open_plain(path, self.what, fix="remove it", error=CoolsdError) as data, zipfile.ZipFile(data) as file:
                return {name: _member(file, f"{name}.npy") for name in self.fields}
        except _UNREADABLE as error:
            found = "another file" if isinstance(error, KeyError | zipfile.BadZipFile) else str(error)[:100]
            raise CoolsdError(str(path), expected=self.what, found=found, fix="remove it") from error


# Exceptions of zipfile for a truncated or changed file; RuntimeError: the file claims to be encrypted.
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error)


def _member(file: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Return one array of an .npz file. Raises ValueError if it is too large or not an array."""
    if file.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("another compression than NumPy's")  # an LZMA header could request any amount of memory
    data = bytearray()
    with file.open(name) as member:
        while piece := member.read(MIB):
            data += piece
            if len(data) > BATCH_BYTES:
                raise ValueError(f"more than {BATCH_BYTES} bytes")
    return parse_npy(data)
