"""What a dry run says a build will take, beside what builds took; and a disk that is too small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from coolsd_rt.cli.build import command
from coolsd_rt.errors import CoolsdError
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows.build import estimate
from coolsd_rt.workflows.build.describe import describe
from coolsd_rt.workflows.build.estimate import BLOCKS, Amount, MatrixEstimate, SpecSizes, total
from coolsd_rt.workflows.build.run import build, plan, with_engine, with_precision
from tests.workflows.building import left

EMOJI = Path("pipelines/emoji.yaml")


def sizes(engine: EngineFolder) -> dict[str, int]:
    found = dict.fromkeys(engine.manifest.stages, 0)
    for record in engine.manifest.files.values():
        found[record.role] += record.size
    return found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_bytes_of_every_stage_are_the_real_ones(
    tiny_engine: EngineFolder, tiny_engine_int8: EngineFolder, tiny_spec: Path, tmp_path: Path, precision: str
) -> None:
    """Weights are exact; of a graph this small a tenth is its nodes, which are a guess."""
    real = sizes(tiny_engine if precision == "fp32" else tiny_engine_int8)
    planned = plan(with_precision(load_spec(tiny_spec), precision), tmp_path)
    for stage in planned.stages:
        assert stage.amount.disk == pytest.approx(real[stage.name], rel=0.2), stage.name
    assert planned.estimate.disk == pytest.approx(sum(real.values()), rel=0.06)


def test_weights_that_are_used_often_are_stored_once_beside_a_graph() -> None:
    matrix = MatrixEstimate(128, 16384, 5)
    graph = estimate.GraphEstimate((matrix,), 0, 5, 0, 128 * 16384)
    one = 128 * 16384 + 16384 * 4
    assert matrix.bytes(4, True) == one
    assert graph.amount(4, True).disk == 5 * one  # 11 MB: in the file
    assert estimate.GraphEstimate((matrix, matrix, matrix), 0, 5, 0, 0).amount(4, True).disk == 3 * one
    assert graph.amount(4, False).disk == 4 * 128 * 16384
    assert MatrixEstimate(40, 3).bytes(4, True) == 480  # no block divides it


def test_the_constants_are_the_exporters() -> None:
    pytest.importorskip("onnx")
    from coolsd_rt.export import external, quantize

    assert (estimate.BESIDE, BLOCKS) == (external.LARGEST, quantize.BLOCKS)


def test_cached_stages_take_nothing(tiny_engine: EngineFolder, tiny_spec: Path, tiny_out: Path) -> None:
    assert plan(load_spec(tiny_spec), tiny_out).estimate == Amount(0, 0, 0.0)
    assert total([Amount(3, 5, 1.0), Amount(4, 2, 1.0)]) == Amount(7, 5, 7.0)


@pytest.mark.parametrize("backend", ["torch", "tensorrt-rtx"])
def test_every_backend_has_an_estimate(tiny_spec: Path, tmp_path: Path, backend: str) -> None:
    planned = plan(with_engine(load_spec(tiny_spec), backend=backend), tmp_path)
    assert all(s.amount.disk > 0 and s.amount.memory > 0 for s in planned.stages)
    if backend == "torch":
        files = [p for k, p in planned.loaded.files.items() if k.endswith(".weights")]
        assert planned.stages[0].amount.disk == sum(p.stat().st_size for p in files)


def test_a_disk_that_is_too_small_is_said_before_anything_runs(
    tiny_spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coolsd_rt.workflows.build import run as module

    monkeypatch.setattr("coolsd_rt.store.atomic.free_bytes", lambda path: 100_000)
    monkeypatch.setattr(estimate, "free_bytes", lambda path: 100_000)
    monkeypatch.setattr(module, "_Runner", lambda *args: pytest.fail("a stage ran"))
    with pytest.raises(CoolsdError) as caught:
        build(plan(load_spec(tiny_spec), tmp_path / "out"))
    for word in ("no space left", "kB free, found 100.0 kB", "choose another disk"):
        assert word in str(caught.value)
    assert left(tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_it(tiny_spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [str(tiny_spec), "--out", str(tmp_path / "o"), "--dry-run"]
    document = json.loads(CliRunner().invoke(command, [*words, "--json"]).output)
    assert set(document["estimate"]) == {"disk_bytes", "memory_bytes", "seconds", "measured_on"}
    assert document["estimate"]["disk_bytes"] == sum(s["estimate"]["disk_bytes"] for s in document["stages"])
    assert document["free_bytes"] > 1_000_000
    assert document["fits"]
    shown = CliRunner().invoke(command, words).output
    for word in ("to write", "free", "at the peak", "roughly"):
        assert word in shown
    monkeypatch.setattr("coolsd_rt.workflows.build.run.free_bytes", lambda path: 1000)
    assert "too little, the build will be refused" in CliRunner().invoke(command, words).output
    assert not json.loads(CliRunner().invoke(command, [*words, "--json"]).output)["fits"]
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(not (EMOJI.parent / "emoji").is_dir(), reason="the demo's weights are not here")
def test_bytes_of_the_demo() -> None:
    """As its engines are, to a few per cent; the figures are of a build of these weights."""
    found = {}
    for precision in ("fp32", "int8"):
        loaded = with_precision(load_spec(EMOJI), precision)
        each = SpecSizes(loaded, describe(loaded))
        found[precision] = {n: each.stage(n).disk for n in ("condition", "target", "draft", "image")}
    assert found["fp32"]["target"] == pytest.approx(22_929_701, rel=0.01)
    assert found["int8"]["target"] == pytest.approx(6_736_221, rel=0.01)
    assert found["fp32"]["draft"] == pytest.approx(9_803_359, rel=0.01)
    assert found["int8"]["draft"] == pytest.approx(8_126_532, rel=0.01)
