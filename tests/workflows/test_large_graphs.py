"""Builds whose weights stand beside their graphs: the limit is lowered, so that a tiny pipeline is one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from coolsd_rt.backends import LoadOptions, load
from coolsd_rt.errors import CoolsdError
from coolsd_rt.export import external
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.workflows.build.run import build, plan
from tests.hub import as_snapshot
from tests.tiny import TARGET
from tools.demo.memory import peak_memory

GRAPHS = ("condition", "target", "draft", "propose", "image")


@pytest.fixture(scope="module")
def beside(tiny_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> EngineFolder:
    """The tiny spec, built with every graph's weights in a file of their own. Read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external, "LARGEST", 1000)
        return build(plan(load_spec(tiny_spec), tmp_path_factory.mktemp("beside"))).engine


@pytest.fixture
def copied(beside: EngineFolder, tmp_path: Path) -> Path:
    shutil.copytree(beside.folder, tmp_path / "engine")
    return tmp_path / "engine"


def test_both_files_are_in_the_manifest(beside: EngineFolder, tiny_engine: EngineFolder) -> None:
    files = beside.manifest.files
    assert {f"{g}.onnx.data" for g in GRAPHS} == set(files) - set(tiny_engine.manifest.files)
    for graph in GRAPHS:
        assert files[f"{graph}.onnx"].size < tiny_engine.manifest.files[f"{graph}.onnx"].size
        assert files[f"{graph}.onnx.data"].role == files[f"{graph}.onnx"].role
    assert beside.manifest.fingerprint == tiny_engine.manifest.fingerprint


def test_it_steps_as_the_other_does(beside: EngineFolder, tiny_engine: EngineFolder) -> None:
    words = np.array([[3, 4, 5], [2, 2, 2]])
    outputs = []
    for engine in (beside, tiny_engine):
        loaded = load(engine.verified(), LoadOptions(threads=1, spinning=False))
        session = loaded.open(loaded.encode_condition(words), 32)
        pos = np.zeros(2, np.int64)
        logits, features = session.target(np.ones((2, TARGET.prefix), np.int64), pos)
        drafted, _ = session.draft(np.ones((2, 2), np.int64), features[:, :2], pos)
        outputs.append((logits, drafted, loaded.decode_images(np.arange(16)[None] % 32)))
    for found, wanted in zip(*outputs, strict=True):
        assert np.array_equal(found, wanted)


def test_it_steps_from_a_snapshot_of_the_hub(beside: EngineFolder, tmp_path: Path) -> None:
    """There the graphs and their weights are links, and stand beside each other under other names."""
    snapshot = as_snapshot(beside.folder, tmp_path / "models--org--name")
    words, decoded = np.array([[3, 4, 5], [2, 2, 2]]), []
    for engine in (beside, open_engine(snapshot)):
        loaded = load(engine.verified(), LoadOptions(threads=1, spinning=False))
        decoded.append((loaded.encode_condition(words), loaded.decode_images(np.arange(16)[None] % 32)))
    for found, wanted in zip(*decoded, strict=True):
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("damage", ["missing", "changed", "cut"])
def test_weights_that_are_not_the_builds_are_one_line(copied: Path, damage: str) -> None:
    path = copied / "target.onnx.data"
    data = bytearray(path.read_bytes())
    path.unlink()
    data[5000] ^= 1
    if damage != "missing":
        path.write_bytes(data if damage == "changed" else data[:5000])
    with pytest.raises(CoolsdError) as caught:
        open_engine(copied).verified()
    said = str(caught.value)
    assert "target.onnx.data" in said
    assert "build it again: coolsd-rt build" in said
    assert "\n" not in said


def test_a_cached_stage_counts_only_with_its_weights(beside: EngineFolder, tiny_spec: Path) -> None:
    out = beside.folder.parents[1]
    planned = plan(load_spec(tiny_spec), out)
    assert all(s.cached for s in planned.stages)
    path = next(out.glob(".cache/draft-*")) / "propose.onnx.data"
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        assert [s.name for s in plan(load_spec(tiny_spec), out).stages if not s.cached] == ["draft"]
    finally:
        aside.rename(path)


_EXPORT = """
import sys
from pathlib import Path
from coolsd_rt.contract import target_contract
from coolsd_rt.export.external import write
from coolsd_rt.export.graphs import TargetGraph
from coolsd_rt.export.quantize import quantize
from coolsd_rt.export.torch_onnx import to_outline
from coolsd_rt.checkpoints.load import load_target, model_dims
from coolsd_rt.workflows.build.smoke import smoke
weights, precision = Path(sys.argv[1]), sys.argv[2]
target = load_target(weights, lazy=True)
kept = [v.float().clone() + 1 for v in load_target(weights).state_dict().values()] if "twice" in sys.argv else []
graph, contract = TargetGraph(target), target_contract(model_dims(target.cfg, None), "float32")
outline, out = to_outline(graph, contract), weights.with_name("-".join(sys.argv[2:]) + ".onnx")
if precision == "int8":
    quantize(outline)
beside = write(outline, out, out.with_name(out.name + ".data"), 1 << 20)
assert beside == (sys.argv[3] == "beside")
smoke("target", out, contract, graph, precision, beside)
"""


def _peak(weights: Path, *words: str) -> int:
    """Of exporting, writing and trying a target alone, in a process of its own."""
    return peak_memory([sys.executable, "-c", _EXPORT, str(weights), *words])


def test_an_export_never_holds_its_weights_twice(tiny_spec: Path, tmp_path: Path) -> None:
    """Over what a tiny one takes: torch and ONNX Runtime themselves. fp32: the mapped file is most of it, 1.4 to 1.55
    of the weights were seen. int8: the file has a quarter, and is mapped, fused and packed: 1.0 to 1.4."""
    from coolsd_rt.models.families.llamagen import ClassConfig
    from coolsd_rt.models.vq import VQConfig
    from tools.random_model import Pipeline, write_target

    config = ClassConfig(vocab=16384, dim=1024, layers=2, heads=16, ffn=2816, grid=4)
    weights = write_target(tmp_path, Pipeline("mid", config, VQConfig()))
    size = 2 * weights.stat().st_size  # in float32; the file is in float16
    assert size > 200e6
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    least = _peak(Path(shutil.copy(tiny_spec.parent / "target.safetensors", tiny)), "fp32", "in")
    assert _peak(weights, "fp32", "beside") - least < 1.9 * size
    assert _peak(weights, "fp32", "beside", "twice") - least > 1.9 * size
    assert _peak(weights, "int8", "beside") - least < 1.7 * size
