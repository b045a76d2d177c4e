"""Checkpoints: what comes back is what was saved, and nothing is ever half written."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.train.checkpoint import load_tree, save_tree
from coolsd_rt.train.loop import optimizers


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) and type(a) is type(b)


def test_an_optimizers_state_comes_back_as_it_was(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 4)
    opts = optimizers(model, [model.weight], 0.1, 0.01)
    model(torch.randn(5, 3)).square().sum().backward()
    for opt in opts:
        opt.step()
    shared = torch.arange(6).reshape(2, 3).T  # not contiguous, and under two names
    tree = {"opts": [o.state_dict() for o in opts], "a": shared, "b": shared, 3: {"x": (1, 2.5, None, True, "w", [])}}
    save_tree(tmp_path / "c.safetensors", {"all": tree})
    found = load_tree(tmp_path / "c.safetensors")
    assert found is not None
    assert _same({"all": tree}, found)


def test_nothing_is_loaded_before_the_first_save_and_other_files_are_refused(tmp_path: Path) -> None:
    assert load_tree(tmp_path / "none") is None
    (tmp_path / "cut").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(UserError, match="whole safetensors"):
        load_tree(tmp_path / "cut")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, str(tmp_path / "other"))
    with pytest.raises(CoolsdError, match=r"expected a checkpoint of train-draft.*remove"):
        load_tree(tmp_path / "other")


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    save_tree(path, {"step": 1, "w": torch.ones(2)})

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CoolsdError, match="no space left"):
        save_tree(path, {"step": 2, "w": torch.zeros(2)})
    found = load_tree(path)
    assert found is not None
    assert found["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]
