"""A training's checkpoint and its shards of codes with one thing wrong: an error of ours that says what to remove."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from coolsd_rt.store.weights import check_safetensors
from coolsd_rt.train.checkpoint import TrainState, load_state, save_tree
from coolsd_rt.train.codes import CodeStore
from tests.mutations import fuzz, mutated, mutated_text, survives

TREE: dict[str, Any] = {
    "identity": {"lr": 1e-3, "kind": "eagle"},
    "training": {"model": {"w": torch.ones(2, 3)}, "opts": [{"state": {0: torch.zeros(2)}}], "step": 7},
    "best": {"step": 5, "acceptance": {"accept_length": 2.5, "by_position": (0.9, float("nan"))}},
    "first": {},
    "stale": 0,
    "history": [{"step": 1, "loss": float("inf")}],
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, torch.Tensor]]:
    path = tmp_path_factory.mktemp("state") / "checkpoint.safetensors"
    save_tree(path, TREE)
    return path, check_safetensors(path).metadata["tree"], load_file(str(path))


def test_numbers_that_json_cannot_say_come_back(saved: tuple[Path, str, dict[str, torch.Tensor]]) -> None:
    path, text, _ = saved
    assert "NaN" not in text
    assert "Infinity" not in text
    found = load_state(path)
    assert isinstance(found, TrainState)
    first, second = found.best["acceptance"]["by_position"]
    assert (first, second != second, found.history[0]["loss"]) == (0.9, True, float("inf"))
    assert found.training["opts"][0]["state"].keys() == {0}


@fuzz(800)
@given(data=st.data())
def test_a_tree_with_one_change(saved: tuple[Path, str, dict[str, torch.Tensor]], data: st.DataObject) -> None:
    path, text, tensors = saved
    document = DOCUMENTS.setdefault(text, json.loads(text))
    raw = data.draw(mutated_text(text)) if data.draw(st.booleans()) else data.draw(mutated(document)).text
    path.write_bytes(save(tensors, metadata={"tree": raw.decode("utf-8", "replace")}))
    refused = survives(lambda: load_state(path))
    assert refused is None or "remove" in str(refused)


DOCUMENTS: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (torch.tensor([[0, 1], [2, 8]], dtype=torch.int32), "expected codes from 0 to 7, found 0 to 8"),
        (torch.tensor([[0, 1], [2, -1]], dtype=torch.int32), "expected codes from 0 to 7, found -1 to 2"),
        (torch.tensor([[0.0, 1.0], [2.0, 3.0]]), "expected codes int32, found torch.float32"),
        (torch.tensor([[0, 1]], dtype=torch.int32), r"expected codes \[2, 2\], found \[1, 2\]"),
    ],
)
def test_codes_that_are_none(tmp_path: Path, codes: torch.Tensor, said: str) -> None:
    store = CodeStore(tmp_path, "folder", {}, 2, 2, 8)
    store.fill(lambda shard: torch.zeros(len(shard), 2, dtype=torch.int64))
    assert store.load().tolist() == [[0, 0], [0, 0]]
    path = next(store.folder.glob("*.safetensors"))
    path.write_bytes(save({"codes": codes}))
    error = survives(store.load)
    assert error is not None
    assert re.search(said, str(error))
    assert "remove it" in str(error)
