"""Names with what wrappers of training put into them, and weights that are not numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from coolsd_rt.checkpoints.convert import DType, convert
from coolsd_rt.checkpoints.format import ConvertOptions
from coolsd_rt.checkpoints.formats.plain import PLAIN, convert_plain
from coolsd_rt.checkpoints.reader import WRAPPERS, CheckpointReader
from coolsd_rt.cli.main import run
from coolsd_rt.errors import UserError
from coolsd_rt.models.finite import non_finite
from tests.models.test_reference_llamagen import HEADS, checkpoint

OPTIONS = ConvertOptions(size=256, heads=HEADS)
STATE = checkpoint("c2i")
NAMES = set(STATE) - {"freqs_cis"}


def named(prefix: str = "", layer: str = "") -> dict[str, Tensor]:
    """The checkpoint with `prefix` before every name, and `layer` behind `layers.N.`"""
    return {
        prefix + (name[:9] + layer + name[9:] if name.startswith("layers.") else name): value
        for name, value in STATE.items()
    }


WRAPPED = {
    "compiled": (named("_orig_mod."), ("_orig_mod",)),
    "parallel": (named("module."), ("module",)),
    "parallel, then compiled": (named("_orig_mod.module."), ("module", "_orig_mod")),
    "compiled, then parallel": (named("module._orig_mod."), ("module", "_orig_mod")),
    "twice": (named("module.module."), ("module",)),
    "layer by layer": (named(layer="_orig_mod."), ("_orig_mod",)),
    "both, nested": (named("module.", "_checkpoint_wrapped_module._orig_mod."),
                     ("module", "_orig_mod", "_checkpoint_wrapped_module")),
    "none": (named(), ()),
}  # fmt: skip


@pytest.mark.parametrize("case", WRAPPED)
@pytest.mark.parametrize("container", ["flat", "nested", "safetensors", "shards"])
def test_what_wrappers_add_to_names_is_taken_off(case: str, container: str, tmp_path: Path) -> None:
    state, wrappers = WRAPPED[case]
    source = tmp_path / "c.pt"
    if container == "safetensors":
        source = tmp_path / "c.safetensors"
        save_file(state, source)
    elif container == "shards":
        source = tmp_path / "shards"
        source.mkdir()
        save_file(state, source / "a.safetensors")
        table = json.dumps({"weight_map": dict.fromkeys(state, "a.safetensors")})
        (source / "model.safetensors.index.json").write_text(table)
    else:
        torch.save({"module": state} if container == "nested" else state, source)
    done = convert(source, tmp_path / "ours.safetensors", options=OPTIONS)
    written = load_file(done.path)
    assert set(written) == NAMES
    assert all(torch.equal(written[name], STATE[name]) for name in NAMES)
    assert done.wrappers == wrappers
    assert done.dropped == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_itself_names_them_so(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    network[0] = nn.DataParallel(network[0])
    compiled: Any = torch.compile(nn.DataParallel(network))
    torch.save(compiled.state_dict(), tmp_path / "c.pt")
    assert set(CheckpointReader(tmp_path / "c.pt").tensors) == {"0.weight", "0.bias"}


def test_what_was_taken_off_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(WRAPPED["parallel, then compiled"][0], tmp_path / "c.pt")
    arguments = ["convert", str(tmp_path / "c.pt"), "--to", str(tmp_path / "x"), "--size", "256", "--heads", "3"]
    assert run(arguments) == 0
    assert "module. (of DataParallel or DistributedDataParallel), _orig_mod. (of torch.compile)" in (
        capsys.readouterr().out
    )
    assert run([*arguments, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["wrappers"] == ["module", "_orig_mod"]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_two_tensors_that_would_become_one_are_named(wrapper: str, tmp_path: Path) -> None:
    """As where the averaged network lies beside the trained one."""
    torch.save(STATE | {f"{wrapper}.norm.weight": torch.zeros(48)}, tmp_path / "c.pt")
    with pytest.raises(
        UserError, match=rf"found norm\.weight and {wrapper}\.norm\.weight, which are both norm\.weight"
    ):
        convert(tmp_path / "c.pt", tmp_path / "x", options=OPTIONS)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["keep", "float32", "float16", "bfloat16"])
def test_weights_that_are_no_numbers_are_named_and_not_written(value: float, dtype: DType, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in STATE.items()}
    state["norm.weight"][:3] = value
    state["layers.1.attention.wqkv.weight"][5, 6] = value
    state["freqs_cis"][:] = value  # no part of the network
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(UserError) as caught:
        convert(tmp_path / "c.pt", tmp_path / "x", options=OPTIONS, dtype=dtype)
    text = str(caught.value)
    assert "expected finite numbers" in text
    assert "3 in norm.weight" in text
    assert "1 in layers.1.attention.wqkv.weight" in text
    assert "freqs_cis" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_many_tensors_are_counted(tmp_path: Path) -> None:
    state = {name: torch.full_like(tensor, float("nan")) for name, tensor in STATE.items()}
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(UserError, match=f"and more in {len(NAMES) - 4} other tensors") as caught:
        convert(tmp_path / "c.pt", tmp_path / "x", options=OPTIONS)
    assert len(str(caught.value)) < 500


def test_numbers_that_the_type_written_cannot_hold(tmp_path: Path) -> None:
    state = STATE | {"norm.weight": torch.full((48,), 1e5)}
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(
        UserError, match=r"float16 can hold, found numbers above 65504: 48 in norm\.weight; write --dtype"
    ):
        convert(tmp_path / "c.pt", tmp_path / "x", options=OPTIONS, dtype="float16")
    assert not (tmp_path / "x").exists()
    dtypes: tuple[DType, ...] = ("keep", "bfloat16")
    for dtype in dtypes:
        convert(tmp_path / "c.pt", tmp_path / dtype, options=OPTIONS, dtype=dtype)


@pytest.mark.parametrize("family", PLAIN)
def test_networks_of_others_are_checked_too(family: str, tmp_path: Path) -> None:
    state = {PLAIN[family]: torch.ones(2, 2), "b": torch.tensor([1.0, float("nan")])}
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(UserError, match="1 in b"):
        convert_plain(tmp_path / "c.pt", tmp_path / "x", family)
    torch.save(state | {"b": torch.ones(2, dtype=torch.float64)}, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"b: expected one of F32, F16, BF16, found float64"):  # it was left out before
        convert_plain(tmp_path / "c.pt", tmp_path / "x", family)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_counting(dtype: torch.dtype) -> None:
    values = torch.zeros(3, 5, dtype=dtype)
    assert non_finite(values) == 0
    values[0, 1], values[2, 3], values[1, 1] = float("nan"), float("inf"), -float("inf")
    assert non_finite(values) == 3
    assert non_finite(values.T) == 3
    assert non_finite(values[:0]) == 0
    assert non_finite(torch.full((), float("nan"), dtype=dtype)) == 1
