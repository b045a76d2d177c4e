"""Reads the tensors of a torch.save file. A damaged file gives a one-line error, and nothing in the file can execute.

torch unpickles plain tensors only (`weights_only`). Before that, an archive is compared with its checksums, which torch
does not do: otherwise a changed byte would become a changed weight. The format before torch 1.6 has no checksums.

Knows the containers of torch.save. Does not know the meaning of tensors.
"""

from __future__ import annotations

import argparse
import mmap
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from coolsd_rt.checkpoints.writer import NAMES
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import open_plain
from coolsd_rt.store.weights import TensorInfo

CHECKPOINT = "a checkpoint of torch.save"
ARCHIVE = b"PK\x03\x04"
MAX_PICKLE = 64 << 20  # largest size of the pickle in an archive (names, shapes, settings); tensors are separate
_STATES = ("model", "module", "state_dict")  # keys under which training checkpoints store weights
_REOPEN = 256 << 20  # bytes read before a mapped archive is reopened, to release its pages
_CHUNK = 1 << 20
_END = 22  # size of the end record of an archive without a comment
_GLOBAL = re.compile(r"Unsupported global: GLOBAL (\S{1,80}) was")
_MORE = "Unsupported global|unrecognized function|whose module|Can only create new object|Can only build"
_ASKED = re.compile(r"tried to allocate (\d+) bytes")


def damaged(path: Path, why: str = "") -> UserError:
    """Return the error for a file that is not a complete checkpoint."""
    found = f"a truncated, damaged or other file{f' ({why})' if why else ''}"
    return UserError(str(path), expected=CHECKPOINT, found=found, fix="get the file again")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert exceptions of a library that reads a checkpoint to a UserError.

    Readers raise almost anything for damaged files (IndexError, KeyError, struct.error, zlib.error, ...), so every
    exception is treated as a damaged file unless it names another cause.
    """
    try:
        yield
    except CoolsdError:
        raise
    except pickle.UnpicklingError as error:
        if not re.search(_MORE, str(error)):
            raise damaged(path) from error
        name = _GLOBAL.search(str(error))
        found = f"a pickle that holds more than tensors{f' ({name[1]})' if name else ''}"
        fix = "load it where it was made, and save its weights alone"
        raise UserError(str(path), expected=CHECKPOINT, found=found, fix=fix) from error
    except Exception as error:
        asked = _ASKED.search(str(error))
        if asked and int(asked[1]) <= path.stat().st_size:
            need = f"{int(asked[1])} bytes of memory for its tensors"
            raise CoolsdError(str(path), expected=need, found="less", fix="use a machine with more memory") from error
        raise damaged(path) from error


class PickleShard:
    """One torch.save file with weights under `model`, `module`, `state_dict`, or at the top level.

    An archive is memory-mapped. A file in the format before torch 1.6 is read as a whole.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError if the file is not such a file, is damaged, or contains anything but tensors."""
        self.path = path
        with open_plain(path, CHECKPOINT) as file, reading(path):
            self._archive = file.read(len(ARCHIVE)) == ARCHIVE
            if self._archive:
                _check_archive(path, file)
        self._state, self._read = self._load(), 0
        self.tensors: Mapping[str, TensorInfo] = {k: _info(v) for k, v in self._state.items()}

    def read(self, name: str) -> Tensor:
        """Return a tensor by its name in the file."""
        if self._archive and self._read > _REOPEN:
            self._state, self._read = {}, 0
        self._state = self._state or self._load()
        value = self._state[name]
        self._read += value.nbytes
        return value

    def _load(self) -> dict[str, Tensor]:
        # LlamaGen's training checkpoints also contain an argparse.Namespace, which holds only data.
        names = torch.serialization.safe_globals([argparse.Namespace])
        with reading(self.path), names, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats; errors say what matters
            loaded = _mapped(self.path) if self._archive else _legacy(self.path)
            state = _weights(loaded)
        if state is None:
            kind = type(loaded).__name__
            raise UserError(str(self.path), expected="a checkpoint with weights by name", found=kind)
        return state


def _mapped(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _legacy(path: Path) -> Any:
    """Load a file from before torch 1.6.

    It is memory-mapped, so that a wrong length in a damaged file cannot exceed it.
    """
    with open_plain(path, CHECKPOINT) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        loaded = torch.load(data, map_location="cpu", weights_only=True)  # type: ignore[arg-type]  # it is a file
        if data.tell() != len(data):
            raise damaged(path, f"{len(data) - data.tell()} bytes behind its last tensor")
    return loaded


def _weights(loaded: Any) -> dict[str, Tensor] | None:
    """Return tensors by name; None if there are none."""
    nested = [loaded[k] for k in _STATES if isinstance(loaded, dict) and isinstance(loaded.get(k), dict)]
    state = nested[0] if nested else loaded
    if not isinstance(state, dict):
        return None
    return {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)} or None


def _info(value: Tensor) -> TensorInfo:
    """Return shape and dtype of a tensor; if its bytes are not plain numbers, the dtype is a description in words."""
    shape, dtype = tuple(value.shape), NAMES.get(value.dtype, str(value.dtype).removeprefix("torch."))
    plain = value.layout is torch.strided and not value.is_quantized and value.device.type == "cpu"
    if not plain or type(value) not in (Tensor, torch.nn.Parameter):
        return TensorInfo("a sparse or quantized tensor, or one without values", shape)
    # With strides of 0 a few bytes can stand for a tensor of any size, even one that overflows torch's count.
    if prod(shape) * value.itemsize > value.untyped_storage().nbytes():
        return TensorInfo(f"an expanded tensor of {dtype}", shape)
    return TensorInfo(dtype, shape)


def _check_archive(path: Path, file: BinaryIO) -> None:
    """Compare an archive with its directory and checksums. Raises UserError, or an error of zipfile."""
    size = path.stat().st_size
    file.seek(max(0, size - _END))
    if not (end := file.read()).startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":
        raise damaged(path, "it does not end as an archive does")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(set(names)) != len(names) or len(pickles) != 1:
            raise damaged(path, "its list of parts is not that of torch.save")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            fix = "load it with torch.load and save it again"
            raise UserError(str(path), expected=CHECKPOINT, found="a compressed archive", fix=fix)
        if sum(entry.file_size for entry in entries) > size or pickles[0].file_size > MAX_PICKLE:
            raise damaged(path, "its parts are larger than they can be")
        if all(entry.CRC == 0 for entry in entries):  # torch.serialization.set_crc32_options(False)
            for entry in entries:
                entry.CRC = None  # type: ignore[assignment]  # zipfile then skips the check
        for entry in entries:
            _check_part(path, archive, entry)


def _check_part(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    try:
        with archive.open(entry) as part:
            while part.read(_CHUNK):
                pass
    except zipfile.BadZipFile as error:
        name = entry.filename.encode("unicode_escape").decode()[:60]
        raise damaged(path, f"the bytes of {name} do not match their checksum") from error
