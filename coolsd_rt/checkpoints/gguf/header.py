"""Reads the header of a GGUF file: its metadata, and where each tensor is.

Every count and length is compared with the size of the file before it is used, so that a damaged or hostile file costs
neither memory nor time. The package `gguf` gives the size of each quantised type; its own reader trusts the file, and
is not used. Knows the container, versions 2 and 3. Does not know the meaning of keys and tensors. Source: the public
specification of the format (ggml).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from coolsd_rt.errors import MissingExtra, UserError
from coolsd_rt.files import open_plain

MAGIC = b"GGUF"
GGUF_FILE = "a GGUF file of version 2 or 3"
MAX_HEADER = 256 << 20  # bytes before the tensors' data: twenty times those of a vocabulary of 256,000
MAX_ENTRIES = 1 << 16  # keys, and tensors: the largest network of this package has a quarter
MAX_ITEMS = 1 << 22  # entries of an array: more merges than any vocabulary has
_ALIGNMENT = 32
_TEXT, _ARRAY = 8, 9
_NUMBERS = {
    0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
"""Types of plain values, by their number in a file, as NumPy's."""
_KEY, _TENSOR = 13, 24  # least bytes of a key with its value, and of a tensor's description


class _Bad(ValueError):
    """The file is not what its header says; the message says why."""


@dataclass(frozen=True)
class TensorPlace:
    """A tensor in a GGUF file.

    Attributes:
        kind: name of its type, such as Q4_K.
        number: number of its type.
        shape: its shape, slowest axis first (a file has the fastest first).
        at: position of its first byte in the file.
        size: its size in bytes.
    """

    kind: str
    number: int
    shape: tuple[int, ...]
    at: int
    size: int


@dataclass(frozen=True)
class GGUFHeader:
    """The metadata of a GGUF file by key, and its tensors by name.

    Values are bool, int, float, str, a list of str, or an array of numbers.
    """

    fields: Mapping[str, Any]
    tensors: Mapping[str, TensorPlace]


def read_header(path: Path) -> GGUFHeader:
    """Read the header of the file at `path`.

    Raises:
        UserError: not a GGUF file, of another version, truncated or damaged, or with a tensor of an unknown type.
        MissingExtra: the package gguf is not installed.
    """
    with open_plain(path, GGUF_FILE, fix="get the file again") as file:
        size = path.stat().st_size
        head = file.read(len(MAGIC))
        if head != MAGIC:
            found = "an empty file" if not head else f"a file that begins with {head!r}"
            raise UserError(str(path), expected=GGUF_FILE, found=found, fix="get the file again")
        types = _types()
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Cursor(data, size).header(types)
        except _Bad as error:
            raise UserError(str(path), expected=GGUF_FILE, found=str(error), fix="get the file again") from error


def _types() -> dict[int, tuple[str, int, int]]:
    """Return name, numbers of a block and bytes of a block of each tensor type, by its number in a file."""
    try:
        from gguf.constants import GGML_QUANT_SIZES
    except ImportError as error:
        raise MissingExtra("gguf", "gguf", "reading a GGUF file") from error
    return {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}


class _Cursor:
    """A position in the header."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self._data, self._size, self._at = data, size, len(MAGIC)

    def header(self, types: Mapping[int, tuple[str, int, int]]) -> GGUFHeader:
        """Read everything from the version to the last tensor's description."""
        version = self._number("<u4")
        if version not in (2, 3):
            swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big")
            raise _Bad(
                f"version {version}" if swapped not in (2, 3) else "a file for a machine of the other byte order"
            )
        tensors, keys = self._count("tensors", _TENSOR), self._count("keys", _KEY)
        fields: dict[str, Any] = {}
        for _ in range(keys):
            key = self._text("a key")
            if key in fields:
                raise _Bad(f"the key {key[:60]!r} twice")
            fields[key] = self._value(key, self._number("<u4"))
        described = [self._tensor(types) for _ in range(tensors)]
        begin = _aligned(self._at, fields.get("general.alignment", _ALIGNMENT))
        return GGUFHeader(fields, _placed(described, begin, self._size))

    def _take(self, size: int, what: str) -> int:
        """Move past `size` bytes and return where they begin."""
        at = self._at
        if size > self._size - at:
            raise _Bad(f"a truncated or damaged file: {what} goes beyond its end")
        if at + size > MAX_HEADER:
            raise _Bad(f"a header of more than {MAX_HEADER >> 20} MiB")
        self._at += size
        return at

    def _number(self, kind: str, what: str = "the header") -> Any:
        dtype = np.dtype(kind)
        at = self._take(dtype.itemsize, what)
        value = np.frombuffer(self._data[at : at + dtype.itemsize], dtype)[0]
        # A float32 as the shortest decimal that is this float32: 1e-05, not 9.999999747378752e-06.
        return float(str(value)) if kind == "<f4" else value.item()

    def _count(self, what: str, least: int) -> int:
        count = int(self._number("<u8"))
        if count > MAX_ENTRIES or count * least > self._size:
            raise _Bad(f"a damaged file: {count} {what}")
        return count

    def _text(self, what: str) -> str:
        size = int(self._number("<u8", what))
        at = self._take(size, what)
        try:
            return self._data[at : at + size].decode("utf-8")
        except UnicodeDecodeError as error:
            raise _Bad(f"a damaged file: {what} is not UTF-8") from error

    def _value(self, key: str, kind: int) -> Any:
        name = f"the value of {key[:60]!r}"
        if kind == _TEXT:
            return self._text(name)
        if kind == _ARRAY:
            return self._array(name)
        if kind not in _NUMBERS:
            raise _Bad(f"a damaged file: {name} is of the unknown type {kind}")
        return self._number(_NUMBERS[kind], name)

    def _array(self, name: str) -> Any:
        kind, count = int(self._number("<u4", name)), int(self._number("<u8", name))
        if count > MAX_ITEMS:
            raise _Bad(f"a damaged file: {name} has {count} entries")
        if kind == _TEXT:
            if count * 8 > self._size - self._at:
                raise _Bad(f"a truncated or damaged file: {name} goes beyond its end")
            return [self._text(name) for _ in range(count)]
        if kind not in _NUMBERS:
            found = "an array of arrays" if kind == _ARRAY else f"an array of the unknown type {kind}"
            raise _Bad(f"a damaged file: {name} is {found}")
        dtype = np.dtype(_NUMBERS[kind])
        at = self._take(count * dtype.itemsize, name)
        return np.frombuffer(self._data[at : at + count * dtype.itemsize], dtype)

    def _tensor(self, types: Mapping[int, tuple[str, int, int]]) -> tuple[str, TensorPlace]:
        name = self._text("a tensor's name")
        axes = int(self._number("<u4", name[:60]))
        if not 1 <= axes <= 4:
            raise _Bad(f"a damaged file: the tensor {name[:60]!r} has {axes} axes")
        at = self._take(8 * axes, "a tensor's shape")
        shape = struct.unpack(f"<{axes}Q", self._data[at : at + 8 * axes])[::-1]
        number, offset = int(self._number("<u4", name[:60])), int(self._number("<u8", name[:60]))
        if number not in types:
            raise _Bad(f"the tensor {name[:60]!r} of the unknown type {number}")
        kind, block, size = types[number]
        if 0 in shape or shape[-1] % block:
            raise _Bad(f"a damaged file: the tensor {name[:60]!r} of type {kind} and shape {list(shape)}")
        return name, TensorPlace(kind, number, shape, offset, prod(shape) // block * size)


def _aligned(at: int, alignment: object) -> int:
    whole = isinstance(alignment, int) and not isinstance(alignment, bool)
    if not whole or not 1 <= alignment <= MAX_HEADER or alignment & (alignment - 1):  # type: ignore[operator]
        raise _Bad(f"a damaged file: general.alignment is {str(alignment)[:60]}")
    return at + -at % alignment  # type: ignore[operator]


def _placed(described: list[tuple[str, TensorPlace]], begin: int, size: int) -> dict[str, TensorPlace]:
    """Return the tensors with positions in the file.

    They may not overlap: few bytes could otherwise stand for tensors of any total size.
    """
    placed: dict[str, TensorPlace] = {}
    for name, place in described:
        if name in placed:
            raise _Bad(f"the tensor {name[:60]!r} twice")
        if begin + place.at + place.size > size:
            raise _Bad(f"a truncated or damaged file: the tensor {name[:60]!r} goes beyond its end")
        placed[name] = TensorPlace(place.kind, place.number, place.shape, begin + place.at, place.size)
    end = 0
    for name, place in sorted(placed.items(), key=lambda item: item[1].at):
        if place.at < end:
            raise _Bad(f"a damaged file: the tensor {name[:60]!r} overlaps another")
        end = place.at + place.size
    return placed
