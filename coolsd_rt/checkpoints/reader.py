"""Reads the tensors of a published checkpoint: a file or the shards of a folder; safetensors, torch pickles or GGUF.

Each tensor is in memory only while it is used. Names are returned without the parts that training wrappers add. Knows
containers; does not know the meaning of tensors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from coolsd_rt.checkpoints.gguf.header import MAGIC
from coolsd_rt.checkpoints.gguf.shard import GGUFShard
from coolsd_rt.checkpoints.torch_pickle import ARCHIVE, PickleShard, reading
from coolsd_rt.cores import limit_torch
from coolsd_rt.errors import UserError
from coolsd_rt.files import LINK_FIX, blob_digest, hub_blob, open_plain, read_json, why_unusable
from coolsd_rt.store.hashing import sha256_file
from coolsd_rt.store.weights import TensorInfo, check_safetensors

MAX_JSON = 64 << 20  # largest size of a config.json or an index
WRAPPERS: Mapping[str, str] = {
    "module": "DataParallel or DistributedDataParallel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
"""Name parts that torch's wrapper modules add to tensor names. No format has such a part in its own names."""

_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin")
_OF_A_MODEL = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)")
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".gguf")


class SafetensorsShard:
    """One safetensors file. It is reopened for each tensor, so that mapped pages are released."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: Mapping[str, TensorInfo] = check_safetensors(path).tensors

    def read(self, name: str) -> Tensor:
        """Return a tensor by its name in the file. Raises UserError if the file is damaged."""
        with reading(self.path), safe_open(str(self.path), framework="pt") as file:
            value: Tensor = file.get_tensor(name)
        return value


Shard = SafetensorsShard | PickleShard | GGUFShard


class CheckpointReader:
    """All tensors of a checkpoint.

    Attributes:
        tensors: tensor name, without wrappers, to dtype and shape.
        config: the checkpoint's config.json, or the metadata of a GGUF file; {} without one.
        wrappers: the names of `WRAPPERS` that were removed from tensor names.
    """

    def __init__(self, path: Path) -> None:
        """Open the checkpoint at `path`.

        Raises UserError if there is no checkpoint; if a shard is missing, damaged or disagrees with the index; or if
        two tensor names differ only in wrappers.
        """
        limit_torch()
        self.path = path
        self.config: dict[str, Any] = {}
        folder = path if path.is_dir() else path.parent
        # Beside a file that transformers did not name, config.json may belong to another file in the same folder.
        own = path.is_dir() or _OF_A_MODEL.fullmatch(path.name)
        if own and why_unusable(folder / "config.json") != "nothing":
            self.config = _json(folder / "config.json", "a config.json")
        index = _index(path)
        shards = [_shard(file) for file in _files(path, index)]
        if isinstance(shards[0], GGUFShard):
            self.config = dict(shards[0].fields)
        homes = _homes(path, shards)
        if index is not None:
            _check_index(path, index, {name: shard.path.name for name, shard in homes.items()})
        names = _unwrapped(path, list(homes))
        self._home = {name: (homes[theirs], theirs) for name, theirs in names.items()}
        self._order = {name: at for at, name in enumerate(self._home)}
        self.tensors = {name: shard.tensors[theirs] for name, (shard, theirs) in self._home.items()}
        parts = {part for theirs in homes for part in theirs.split(".")}
        self.wrappers = tuple(wrapper for wrapper in WRAPPERS if wrapper in parts)

    def read(self, name: str) -> Tensor:
        """Return a tensor as it is stored."""
        shard, theirs = self._home[name]
        return shard.read(theirs)

    def order(self, name: str) -> int:
        """Return a sort key under which tensors of one shard are adjacent."""
        return self._order[name]


def _homes(path: Path, shards: Sequence[Shard]) -> dict[str, Shard]:
    homes: dict[str, Shard] = {}
    for shard in shards:
        for name in shard.tensors:
            if name in homes:
                raise UserError(f"{path}: {name}", expected="every tensor once", found="two shards with this tensor")
            homes[name] = shard
    return homes


def _unwrapped(path: Path, theirs: Sequence[str]) -> dict[str, str]:
    """Map names without wrappers to the names in the file. Raises UserError if two names become equal."""
    names: dict[str, str] = {}
    for name in theirs:
        short = ".".join(part for part in name.split(".") if part not in WRAPPERS) or name
        if short in names:
            found = f"{names[short]} and {name}, which are both {short} without the wrappers' prefixes"
            raise UserError(str(path), expected="every tensor once", found=found, fix="save one of the two networks")
        names[short] = name
    return names


def _index(path: Path) -> Path | None:
    """Return the index of a folder of shards; None without one."""
    if not path.is_dir():
        return None
    return next((path / name for name in _INDEX if why_unusable(path / name) != "nothing"), None)


def _files(path: Path, index: Path | None) -> list[Path]:
    if (why := why_unusable(path)) == "nothing":
        raise UserError(str(path), expected="a checkpoint, its folder, or org/name@COMMIT", found="nothing")
    if index is not None:
        return [path / shard for shard in dict.fromkeys(_weight_map(index).values())]
    if why != "a folder":
        return [path]
    for name in _SINGLE:
        if why_unusable(path / name) != "nothing":
            return [path / name]
    found = sorted(p for p in path.iterdir() if p.suffix in _WEIGHTS)
    if len(found) != 1:
        what = ", ".join(p.name for p in found[:6]) or "none"
        raise UserError(str(path), expected=f"{_INDEX[0]} or one file of weights", found=what, fix="name the file")
    return found


def _shard(path: Path) -> Shard:
    check_link(path)
    fix = "get the file again" if why_unusable(path) == "nothing" else ""
    with open_plain(path, "a file of weights", fix=fix) as file:
        head = file.read(9)
    if head.startswith(MAGIC) or path.suffix == ".gguf":
        return GGUFShard(path)
    pickled = head.startswith(ARCHIVE) or (head[:1] == b"\x80" and head[8:9] != b"{")
    return PickleShard(path) if pickled else SafetensorsShard(path)


def check_link(path: Path) -> None:
    """Compare a file of a Hugging Face snapshot, which is a link to a blob, with the digest in the blob's name.

    Raises UserError if the link leads to anything but a blob of the same repository, or if the digest differs. Links
    outside a snapshot are the user's and are followed.
    """
    parents = Path(os.path.abspath(path)).parents
    if not path.is_symlink() or not any(p.name == "snapshots" and (p.parent / "blobs").exists() for p in parents):
        return
    blob = hub_blob(path)
    if blob is None:
        found = f"a link to {os.readlink(path)}"
        raise UserError(str(path), expected="a file, or a link to a blob of its repository", found=found, fix=LINK_FIX)
    digest = blob_digest(blob)
    if digest is not None and (found := sha256_file(blob)) != digest:
        expected = f"content of SHA-256 {digest}, the name of its blob"
        raise UserError(str(path), expected=expected, found=found, fix="download the file again")


def _json(path: Path, what: str) -> dict[str, Any]:
    check_link(path)
    data = read_json(path, what, MAX_JSON, fix="get the file again")
    if not isinstance(data, dict):
        raise UserError(str(path), expected=what, found="JSON that is not a mapping", fix="get the file again")
    return data


def _weight_map(path: Path) -> dict[str, str]:
    table = _json(path, "an index of shards").get("weight_map")
    plain = isinstance(table, dict) and table and all(isinstance(v, str) and "/" not in v for v in table.values())
    if not plain:
        raise UserError(f"{path}: weight_map", expected="tensors and the shards they are in", found="something else")
    return dict(table)  # type: ignore[arg-type]


def _check_index(folder: Path, index: Path, homes: Mapping[str, str]) -> None:
    """Check that every indexed tensor is in the shard that the index names."""
    wanted = _weight_map(index)
    for name, shard in wanted.items():
        if homes.get(name) != shard:
            raise UserError(f"{folder / shard}: {name}", expected="this tensor, as the index says", found="none")
    for name, shard in homes.items():
        if name not in wanted:
            raise UserError(f"{folder / shard}: {name}", expected="only what the index says", found="this tensor")
