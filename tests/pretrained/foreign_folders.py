"""Folders of tiny random foreign networks, and the changes of files that tests make in copies of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.metrics.test_metric import tiny_clip
from tests.prompts.encoders import write_encoder

State = dict[str, Any]
FIX = "fetch it again"


def make(kind: str, folder: Path) -> Path:
    """kind: "t5" or "clip"."""
    return write_encoder(folder) if kind == "t5" else tiny_clip(folder)


def load(kind: str, folder: Path) -> Any:
    """The network, as the encoder and the score load it."""
    import torch

    from coolsd_rt.pretrained.clip import load_clip
    from coolsd_rt.pretrained.t5 import load_t5

    return load_t5(folder, torch.float32, fix=FIX)[1] if kind == "t5" else load_clip(folder, fix=FIX).network


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def rewrite(folder: Path, change: Callable[[State], object], name: str = "model.safetensors") -> None:
    """Change the tensors of a weights file."""
    from safetensors.torch import load_file, save_file

    state = load_file(folder / name)
    change(state)
    save_file(state, folder / name, metadata={"format": "pt"})


def reword(path: Path, change: Callable[[Any], object]) -> None:
    """Change the data of a JSON file."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def shard(folder: Path, parts: int = 2) -> Path:
    """The weights in shards, with their index. Returns the index."""
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    places = {name: f"model-0000{n % parts + 1}-of-0000{parts}.safetensors" for n, name in enumerate(names)}
    for part in set(places.values()):
        save_file({name: state[name] for name in names if places[name] == part}, folder / part)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def replaced(path: Path, how: str) -> None:
    """Put in a file's place what is often found there."""
    data = path.read_bytes()
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how != "nothing":
        path.write_bytes(
            {
                "empty": b"",
                "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 99\n",
                "page": b"<!DOCTYPE html><html></html>",
                "cut": data[: len(data) // 2],
                "cut early": data[:7],
                "longer": data + b"\0" * 8,
                "bytes": b"\xff\xfe" * 100,
                "brackets": b"[" * 100_000,
            }[how]
        )
