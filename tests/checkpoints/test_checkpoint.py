"""Weights files: what is accepted comes out as it went in, and every wrong file is named with its wrong key."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from coolsd_rt import limits
from coolsd_rt.checkpoints.load import load_draft, load_target, load_tokenizer, model_dims, parse_config
from coolsd_rt.errors import UserError
from coolsd_rt.models.header import read_config, size_of
from coolsd_rt.models.lazy import value
from coolsd_rt.models.llamagen import LlamaGenConfig
from coolsd_rt.models.vq import VQConfig
from tests.models.family_cases import CONFIGS
from tests.tiny import DRAFT, IMAGE, TARGET, networks, write_weights

Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


@pytest.fixture
def folder(tiny_spec: Path) -> Path:
    return tiny_spec.parent


def changed(source: Path, place: Path, change: Change) -> Path:
    """A copy of a weights file with its tensors or its config changed."""
    tensors, config = load_file(str(source)), read_config(source)
    change(tensors, config)
    save_file(tensors, str(place), metadata={"config": json.dumps(config)})
    return place


def test_loads_what_was_saved(folder: Path) -> None:
    target, draft, image = networks()
    loaded = load_target(folder / "target.safetensors")
    both = [
        (target, loaded),
        (draft, load_draft(folder / "draft.safetensors", loaded)),
        (image, load_tokenizer(folder / "vq.safetensors")),
    ]
    for made, read in both:
        for (name, here), there in zip(read.state_dict().items(), made.state_dict().values(), strict=True):
            assert here.dtype == torch.float32, name
            assert torch.equal(here, there.half().float()), name
        assert not read.training
    assert loaded.cfg == TARGET
    assert both[1][1].cfg == DRAFT
    assert both[2][1].cfg == IMAGE
    assert torch.isfinite(loaded.rope).all()


def test_dims_are_the_configs() -> None:
    dims = model_dims(TARGET, DRAFT)
    assert (dims.vocab, dims.dim, dims.layers, dims.heads, dims.head_dim) == (32, 64, 2, 2, 32)
    assert (dims.prefix, dims.tokens, dims.draft_layers, dims.draft_heads, dims.draft_head_dim) == (3, 16, 1, 2, 32)


def test_a_config_is_read_without_torch(folder: Path) -> None:
    code = (
        "import sys, pathlib; from coolsd_rt.models.header import read_config; "
        "assert read_config(pathlib.Path(sys.argv[1]))['grid'] == 4; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder / "target.safetensors")], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


WRONG: list[tuple[str, Change, list[str]]] = [
    ("missing", lambda t, c: t.pop("norm.weight"), ["norm.weight", "expected a tensor [64]", "found none"]),
    ("surplus", lambda t, c: t.update(extra=torch.zeros(2)), ["extra", "expected no such tensor", "[2]"]),
    ("shape", lambda t, c: t.update({"output.weight": torch.zeros(31, 64)}), ["output.weight", "[32, 64]", "[31, 64]"]),
    ("type", lambda t, c: t.update({"norm.weight": torch.zeros(64, dtype=torch.int64)}), ["norm.weight", "I64"]),
    ("NaN", lambda t, c: t["output.weight"].__setitem__((3, 5), float("nan")), ["output.weight", "1 of 2048"]),
    ("unknown key", lambda t, c: c.update(layer=2), ["config: layer", "an unknown key", "did you mean 'layers'?"]),
    ("missing key", lambda t, c: c.pop("grid"), ["config: grid", "expected a value", "found nothing"]),
    ("a word", lambda t, c: c.update(dim="64"), ["config: dim", '"64"']),
    ("a bool", lambda t, c: c.update(dim=True), ["config: dim", "true"]),
    ("zero", lambda t, c: c.update(layers=0), ["config: layers", "positive", "0"]),
    ("heads", lambda t, c: c.update(heads=3), ["config: dim", "3 heads"]),
    ("choice", lambda t, c: c.update(prefix_rope="none"), ["config: prefix_rope", "none"]),
    ("other layers", lambda t, c: c.update(layers=3), ["layers.2.", "found none"]),
]


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_target_is_refused_by_name(folder: Path, tmp_path: Path, change: Change, words: list[str]) -> None:
    path = changed(folder / "target.safetensors", tmp_path / "odd.safetensors", change)
    with pytest.raises(UserError) as caught:
        load_target(path)
    for word in ["odd.safetensors", *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_config(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    for metadata, word in (({"format": "pt"}, "format"), ({"config": "[1]"}, "[1]"), ({"config": "{"}, "not JSON")):
        save_file(load_file(str(folder / "target.safetensors")), str(path), metadata=metadata)
        with pytest.raises(UserError, match="config") as caught:
            load_target(path)
        assert word in str(caught.value)


def test_pickles_and_halves_are_refused(folder: Path, tmp_path: Path) -> None:
    pickle, half = tmp_path / "pickle.safetensors", tmp_path / "half.safetensors"
    torch.save({"a": torch.zeros(2)}, pickle)
    half.write_bytes((folder / "vq.safetensors").read_bytes()[:-100])
    for path, word in ((pickle, "torch.save"), (half, "truncated"), (tmp_path / "absent", "no such file")):
        with pytest.raises(UserError, match=word):
            load_tokenizer(path)


def test_a_huge_config_costs_no_memory(folder: Path, tmp_path: Path) -> None:
    path = changed(folder / "target.safetensors", tmp_path / "huge.safetensors", lambda t, c: c.update(vocab=10**6))
    with pytest.raises(UserError, match=r"shape \[1000000, 64\]"):
        load_target(path)


NUMBERS: tuple[Any, ...] = (0, -1, 1, 7, 5000, 10**6, 10**9, 10**30, 1e308, 0.5, [], [10**9], [1] * 10_000)
LOADERS: dict[str, Callable[[Path], object]] = {
    "target": load_target,
    "draft": lambda path: load_draft(path, networks()[0]),
    "vq": load_tokenizer,
}


@pytest.mark.parametrize("name", LOADERS)
def test_any_number_in_a_config_is_refused_or_loads(folder: Path, tmp_path: Path, name: str) -> None:
    """No layers without end, no table of terabytes, no overflow."""
    source = folder / f"{name}.safetensors"
    known: Any = {"target": TARGET, "draft": DRAFT, "vq": IMAGE}[name]
    for key, old in asdict(known).items():
        for number in NUMBERS if not isinstance(old, bool | str) else ():
            path = changed(source, tmp_path / "odd.safetensors", lambda t, c: c.update({key: number}))  # noqa: B023
            try:
                LOADERS[name](path)
            except UserError as error:
                refused = error
            else:
                continue
            assert re.search(rf"{key}|shape|norm_groups|dim|none|no such tensor", str(refused))
            assert len(str(refused)) < 400


@pytest.mark.parametrize("config", [*CONFIGS.values(), DRAFT, IMAGE], ids=lambda config: type(config).__name__)
def test_every_number_of_a_config_has_two_ends(config: Any) -> None:
    for name, number in asdict(config).items():
        assert isinstance(number, bool | str) or name in limits.CONFIG, name


@pytest.mark.parametrize("lazy", [False, True])
def test_numbers_that_the_precision_cannot_hold(folder: Path, tmp_path: Path, lazy: bool) -> None:
    path = tmp_path / "large.safetensors"
    state = {name: value.float() for name, value in load_file(str(folder / "target.safetensors")).items()}
    state["norm.weight"][:2] = 1e5
    save_file(state, str(path), metadata={"config": json.dumps(read_config(folder / "target.safetensors"))})
    assert load_target(path, torch.bfloat16, lazy=lazy)
    with pytest.raises(UserError, match=r"norm\.weight: expected numbers that float16 can hold, found 2 of 64"):
        value(load_target(path, torch.float16, lazy=lazy).state_dict()["norm.weight"])


def test_a_draft_of_another_target(folder: Path, tmp_path: Path) -> None:
    target, draft, _ = networks()
    other = asdict(DRAFT) | {"heads": 1}
    write_weights(tmp_path / "draft.safetensors", draft, other)
    with pytest.raises(UserError, match=r"config: heads.*size 32.*found 64"):
        load_draft(tmp_path / "draft.safetensors", target)
    target.cfg = LlamaGenConfig(**(asdict(TARGET) | {"dim": 128}))
    with pytest.raises(UserError, match=r"config: dim.*128.*found 64"):
        load_draft(folder / "draft.safetensors", target)


def test_widths_must_fit_the_groups() -> None:
    with pytest.raises(UserError, match="norm_groups"):
        parse_config(Path("x"), VQConfig, asdict(IMAGE) | {"norm_groups": 3, "multipliers": [1, 2]})


def test_size_of() -> None:
    assert size_of(Path("x"), {"grid": 4}, "grid") == 4
    for config in ({}, {"grid": 0}, {"grid": 2.0}, {"grid": True}, {"grid": "4"}):
        with pytest.raises(UserError, match="config: grid"):
            size_of(Path("x"), config, "grid")
