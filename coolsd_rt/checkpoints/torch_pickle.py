"""Tensors of one file of torch.save, read so that a damaged file is an error in one line and nothing in it can run.

torch unpickles plain tensors only (`weights_only`). Before that an archive is compared with its own checksums, which
torch itself does not do: a changed byte would become a changed weight. The format of before torch 1.6 has no checksums.

Knows the containers of torch.save. Does not know what the tensors belong to.
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
MAX_PICKLE = 64 << 20  # bytes of names, shapes and settings in an archive; its tensors are beside them
_STATES = ("model", "module", "state_dict")  # where a training checkpoint keeps its weights
_REOPEN = 256 << 20  # bytes read of a mapped archive before its pages are given back
_CHUNK = 1 << 20
_END = 22  # bytes of the record that ends an archive without a comment
_GLOBAL = re.compile(r"Unsupported global: GLOBAL (\S{1,80}) was")
_MORE = "Unsupported global|unrecognized function|whose module|Can only create new object|Can only build"
_ASKED = re.compile(r"tried to allocate (\d+) bytes")


def damaged(path: Path, why: str = "") -> UserError:
    """The error of a file that is no whole checkpoint."""
    found = f"a truncated, damaged or other file{f' ({why})' if why else ''}"
    return UserError(str(path), expected=CHECKPOINT, found=found, fix="get the file again")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What a library raises while it reads a checkpoint, as an error of ours.

    Readers of damaged files raise almost anything (IndexError, KeyError, struct.error, zlib.error, ...), so everything
    means a damaged file, but for what names another cause.
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
    """One file of torch.save: weights under `model`, `module`, `state_dict`, or at top level.

    An archive is mapped. The format of before torch 1.6 cannot be, and is read whole.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError: not such a file, damaged, or with more than tensors in it."""
        self.path = path
        with open_plain(path, CHECKPOINT) as file, reading(path):
            self._archive = file.read(len(ARCHIVE)) == ARCHIVE
            if self._archive:
                _check_archive(path, file)
        self._state, self._read = self._load(), 0
        self.tensors: Mapping[str, TensorInfo] = {k: _info(v) for k, v in self._state.items()}

    def read(self, name: str) -> Tensor:
        if self._archive and self._read > _REOPEN:
            self._state, self._read = {}, 0
        self._state = self._state or self._load()
        value = self._state[name]
        self._read += value.nbytes
        return value

    def _load(self) -> dict[str, Tensor]:
        # What LlamaGen's training keeps beside the weights; a Namespace holds data, it does nothing.
        names = torch.serialization.safe_globals([argparse.Namespace])
        with reading(self.path), names, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats; what matters is in the error
            loaded = _mapped(self.path) if self._archive else _legacy(self.path)
            state = _weights(loaded)
        if state is None:
            kind = type(loaded).__name__
            raise UserError(str(self.path), expected="a checkpoint with weights by name", found=kind)
        return state


def _mapped(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _legacy(path: Path) -> Any:
    """A file from before torch 1.6. It is read through a map, whose end no length in a damaged file can pass."""
    with open_plain(path, CHECKPOINT) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        loaded = torch.load(data, map_location="cpu", weights_only=True)  # type: ignore[arg-type]  # it is a file
        if data.tell() != len(data):
            raise damaged(path, f"{len(data) - data.tell()} bytes behind its last tensor")
    return loaded


def _weights(loaded: Any) -> dict[str, Tensor] | None:
    """Tensors by name; None if there are none."""
    nested = [loaded[k] for k in _STATES if isinstance(loaded, dict) and isinstance(loaded.get(k), dict)]
    state = nested[0] if nested else loaded
    if not isinstance(state, dict):
        return None
    return {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)} or None


def _info(value: Tensor) -> TensorInfo:
    """A tensor's shape, and its type as safetensors names it; a type in words where its bytes are not its numbers."""
    shape, dtype = tuple(value.shape), NAMES.get(value.dtype, str(value.dtype).removeprefix("torch."))
    plain = value.layout is torch.strided and not value.is_quantized and value.device.type == "cpu"
    if not plain or type(value) not in (Tensor, torch.nn.Parameter):
        return TensorInfo("a sparse or quantized tensor, or one without values", shape)
    # Strides of 0 let a few bytes stand for any size, also for one that overflows torch's own count.
    if prod(shape) * value.itemsize > value.untyped_storage().nbytes():
        return TensorInfo(f"an expanded tensor of {dtype}", shape)
    return TensorInfo(dtype, shape)


def _check_archive(path: Path, file: BinaryIO) -> None:
    """Compare an archive with its own lists and checksums, all of it. Raises UserError, or what zipfile raises."""
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
                entry.CRC = None  # type: ignore[assignment]  # zipfile's own word for: do not compare
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
