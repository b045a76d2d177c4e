"""Checks that a file is complete safetensors, from its header, without torch.

Knows the safetensors container: names, dtypes and shapes. Does not know which tensors a model requires. Never
unpickles.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from coolsd_rt.errors import UserError
from coolsd_rt.files import JsonError, open_plain, parse_json
from coolsd_rt.shown import shorten

MAX_HEADER = 100_000_000
_MAX_AXES = 64
_MAX_SIZE = (1 << 63) - 1
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
_OTHERS = {
    b"PK\x03\x04": "a zip archive, as torch.save writes",
    b"version https://git-lfs": "a Git LFS pointer (the weights were not fetched)",
    b"<": "a web page",
}
_CONVERT = "convert it with safetensors.torch.save_file; pickles are never read"


@dataclass(frozen=True)
class TensorInfo:
    """dtype (as safetensors writes it: F32, BF16, I64, ...) and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class WeightsHeader:
    """The tensors and the metadata in the header of a weights file."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def _bad(path: Path, found: str, fix: str = "get or train the file again") -> UserError:
    return UserError(str(path), expected="a whole safetensors file", found=found, fix=fix)


def _refuse_others(path: Path, head: bytes) -> None:
    if head[8:9] == b"{":
        return
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise _bad(path, "a pickle", _CONVERT)
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise _bad(path, what, _CONVERT if magic == b"PK\x03\x04" else "get the file again")


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header and the number of data bytes after it."""
    try:
        with open_plain(path, "a weights file") as f:
            size = os.fstat(f.fileno()).st_size
            head = f.read(32)
            if size == 0:
                raise _bad(path, "an empty file")
            _refuse_others(path, head)
            length = int.from_bytes(head[:8], "little")
            if size < 8 or length > MAX_HEADER:
                raise _bad(path, "something else")
            if 8 + length > size:
                raise _bad(path, f"a truncated one ({size} bytes, the header alone needs {8 + length})")
            f.seek(8)
            header = parse_json(f.read(length))
    except OSError as e:
        raise UserError(str(path), expected="a readable weights file", found=e.strerror or str(e)) from e
    except JsonError as e:
        raise _bad(path, f"a header with {e}") from e
    if not isinstance(header, dict):
        raise _bad(path, "a header that is not a mapping")
    return header, size - 8 - length


def _tensor(path: Path, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        plain = type(shape) is list and len(shape) <= _MAX_AXES and dtype in _BYTES
        sizes = all(type(n) is int and 0 <= n <= _MAX_SIZE for n in (*shape, begin, end))
        if set(entry) != {"dtype", "shape", "data_offsets"} or not plain or not sizes:
            raise ValueError(name)
    except (KeyError, TypeError, ValueError) as e:
        raise _bad(path, f"a tensor '{shorten(name)}' without a known type, shape and place") from e
    if end - begin != prod(shape) * _BYTES[dtype]:
        raise _bad(path, f"{end - begin} bytes for {shorten(name)} ({dtype} {shorten(str(shape))})")
    return TensorInfo(dtype, tuple(shape)), begin, end


def check_safetensors(path: str | Path) -> WeightsHeader:
    """Read a header and check every tensor against the file's size. Reads no tensor data.

    Raises:
        UserError: the file is missing, empty, truncated, not plain, a pickle or another format, or its header is
            inconsistent.
    """
    path = Path(path)
    header, data_size = _read_header(path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _bad(path, "metadata that is not words")
    tensors, places = {}, []
    for name, entry in header.items():
        tensors[name], begin, end = _tensor(path, name, entry)
        places.append((begin, end, name))
    if not tensors:
        raise _bad(path, "no tensors")
    here = 0
    for begin, end, name in sorted(places):
        if begin != here:
            raise _bad(path, f"a gap or an overlap before {shorten(name)}")
        here = end
    if here != data_size:
        what = "a truncated one" if here > data_size else "additional bytes after its tensors"
        raise _bad(path, f"{what} ({data_size} bytes of data, its tensors need {here})")
    return WeightsHeader(tensors, metadata)
