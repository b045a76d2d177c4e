"""The tensors of a published checkpoint: one file or the shards of a folder, safetensors or torch pickles.

The only place that reads pickles, and only what torch unpickles as plain tensors. A tensor is in memory while it is
used. Knows containers; does not know what the tensors are of.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from coolsd_rt.cores import limit_torch
from coolsd_rt.errors import UserError
from coolsd_rt.models.convert_writer import NAMES
from coolsd_rt.store.weights import TensorInfo, check_safetensors

_STATES = ("model", "module", "state_dict")  # where a training checkpoint keeps its weights
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin")
_OF_A_MODEL = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)")
_REOPEN = 256 << 20  # bytes read of a mapped pickle before its pages are given back


class SafetensorsShard:
    """One safetensors file, opened anew for each tensor: what was mapped is given back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: Mapping[str, TensorInfo] = check_safetensors(path).tensors

    def read(self, name: str) -> Tensor:
        with safe_open(str(self.path), framework="pt") as file:
            value: Tensor = file.get_tensor(name)
        return value


class PickleShard:
    """One file of torch.save: weights under `model`, `module`, `state_dict`, or at top level.

    Mapped, but for the form of before torch 1.6, which cannot be and is read whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state, self._read = self._load(), 0
        self.tensors: Mapping[str, TensorInfo] = {k: _info(path, k, v) for k, v in self._state.items()}

    def read(self, name: str) -> Tensor:
        if self._read > _REOPEN:
            self._state, self._read = {}, 0
        self._state = self._state or self._load()
        value = self._state[name]
        self._read += value.nbytes
        return value

    def _load(self) -> dict[str, Tensor]:
        try:
            # What LlamaGen's training keeps beside the weights; a Namespace holds data, it does nothing.
            with torch.serialization.safe_globals([argparse.Namespace]):
                mapped = zipfile.is_zipfile(self.path)
                loaded = torch.load(self.path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            found = "a pickle that holds more than tensors"
            fix = "load it where it was made, and save its weights alone"
            raise UserError(str(self.path), expected="a checkpoint of torch.save", found=found, fix=fix) from error
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            first = str(error).strip().splitlines()[0][:100] if str(error).strip() else type(error).__name__
            found = f"a truncated or other file ({first})"
            raise UserError(
                str(self.path), expected="a checkpoint of torch.save", found=found, fix="get the file again"
            ) from error
        nested = [loaded[k] for k in _STATES if isinstance(loaded, dict) and isinstance(loaded.get(k), dict)]
        state = nested[0] if nested else loaded
        if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
            raise UserError(str(self.path), expected="a checkpoint with weights by name", found=type(state).__name__)
        return {str(k): v for k, v in state.items() if isinstance(v, Tensor)}


def _info(path: Path, name: str, value: Tensor) -> TensorInfo:
    return TensorInfo(NAMES.get(value.dtype, str(value.dtype).removeprefix("torch.")), tuple(value.shape))


class Source:
    """All tensors of a checkpoint. `config`: its config.json, {} if there is none."""

    def __init__(self, path: Path) -> None:
        """Raises UserError: nothing there, not a checkpoint, a shard that is missing, truncated or not as indexed."""
        limit_torch()
        self.path = path
        self.config: dict[str, Any] = {}
        folder = path if path.is_dir() else path.parent
        # Beside a file of another name than transformers gives, it may be of anything that lies in the same folder.
        if (path.is_dir() or _OF_A_MODEL.fullmatch(path.name)) and (folder / "config.json").is_file():
            self.config = _json(folder / "config.json")
        shards = [_shard(file) for file in _files(path)]
        self._home = {name: shard for shard in shards for name in shard.tensors}
        self._order = {name: at for at, name in enumerate(self._home)}
        self.tensors = {name: shard.tensors[name] for name, shard in self._home.items()}
        if len(self.tensors) != sum(len(s.tensors) for s in shards):
            twice = next(n for s in shards for n in s.tensors if self._home[n] is not s)
            raise UserError(f"{path}: {twice}", expected="every tensor once", found="two shards that have it")
        if path.is_dir():
            _check_index(path, {name: shard.path.name for name, shard in self._home.items()})

    @property
    def largest(self) -> int:
        """Bytes of the largest shard."""
        return max(s.path.stat().st_size for s in set(self._home.values()))

    def read(self, name: str) -> Tensor:
        """A tensor as it is stored."""
        return self._home[name].read(name)

    def order(self, name: str) -> int:
        """Where a tensor stands: sorted by it, shards are read one after another."""
        return self._order[name]


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(str(path), expected="a checkpoint, its folder, or org/name@revision", found="nothing")
    if path.is_file():
        return [path]
    for name in _INDEX:
        if (path / name).is_file():
            return [path / shard for shard in dict.fromkeys(_weight_map(path / name).values())]
    for name in _SINGLE:
        if (path / name).is_file():
            return [path / name]
    found = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt"))
    if len(found) != 1:
        what = ", ".join(p.name for p in found[:6]) or "none"
        raise UserError(str(path), expected=f"{_INDEX[0]} or one file of weights", found=what, fix="name the file")
    return found


def _shard(path: Path) -> SafetensorsShard | PickleShard:
    if not path.is_file():
        raise UserError(str(path), expected="a shard that the index names", found="nothing", fix="get the file again")
    with path.open("rb") as file:
        head = file.read(9)
    pickled = head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[8:9] != b"{")
    return PickleShard(path) if pickled else SafetensorsShard(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(str(path), expected="JSON", found=f"{type(error).__name__}: {error}") from error
    if not isinstance(data, dict):
        raise UserError(str(path), expected="a JSON mapping", found=type(data).__name__)
    return data


def _weight_map(path: Path) -> dict[str, str]:
    table = _json(path).get("weight_map")
    plain = isinstance(table, dict) and table and all(isinstance(v, str) and "/" not in v for v in table.values())
    if not plain:
        raise UserError(f"{path}: weight_map", expected="tensors and the shards they are in", found=str(table)[:60])
    return dict(table)  # type: ignore[arg-type]


def _check_index(folder: Path, homes: Mapping[str, str]) -> None:
    """Every indexed tensor is in the shard the index says."""
    index = next((folder / name for name in _INDEX if (folder / name).is_file()), None)
    if index is None:
        return
    wanted = _weight_map(index)
    for name, shard in wanted.items():
        if homes.get(name) != shard:
            raise UserError(f"{folder / shard}: {name}", expected="this tensor, as the index says", found="none")
    for name, shard in homes.items():
        if name not in wanted:
            raise UserError(f"{folder / shard}: {name}", expected="only what the index says", found="this tensor")
