"""A build: what it depends on, and what it makes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.workflows.build import plan as plan_module
from coolsd_rt.workflows.build import run as module
from coolsd_rt.workflows.build.code import code_digest
from coolsd_rt.workflows.build.plan import on_cpu
from coolsd_rt.workflows.build.run import BuildCallbacks, BuildPlan, build, plan, with_engine, with_precision
from tests.tiny import LENGTH, write_spec
from tests.workflows.building import edit, flip

STAGES = ["condition", "target", "draft", "image"]


def to_run(planned: BuildPlan) -> list[str]:
    return [s.name for s in planned.stages if not s.cached]


def test_a_build_is_whole(tiny_engine: EngineFolder, tiny_spec: Path, tiny_out: Path) -> None:
    manifest = tiny_engine.manifest
    assert list(manifest.stages) == STAGES
    files = {
        "condition.onnx",
        "vocab.json",
        "target.onnx",
        "draft.onnx",
        "propose.onnx",
        "image.onnx",
        "neighbours.npy",
    }
    assert set(manifest.files) == files
    assert manifest.contract["dims"]["tokens"] == 16
    assert manifest.contract["side"] == 8
    assert manifest.contract["draft_length"] == LENGTH
    assert manifest.spec["sampling"]["cfg_scale"] == 2.0
    assert {"torch", "onnx", "onnxruntime", "coolsd-rt"} <= set(manifest.tools)
    assert manifest.stages["target"].facts["target"]["smoke_error"] < 1e-4
    assert set(manifest.stages["image"].facts["image"]["rewritten"]) == {"upsampling", "norm", "narrow"}
    assert not {"Resize", "GroupNormalization"} & set(manifest.stages["image"].facts["image"]["operators"])
    assert tiny_engine.folder.parent == tiny_out / "tiny"
    tiny_engine.verified()


def test_only_onnx_runtime_on_a_cpu_gets_the_forms_for_it(tiny_spec: Path) -> None:
    loaded = load_spec(tiny_spec)
    assert on_cpu(loaded.spec.engine)
    assert not on_cpu(with_engine(loaded, device="cuda").spec.engine)
    assert not on_cpu(with_engine(loaded, backend="tensorrt", precision="fp16").spec.engine)


def test_building_again_runs_nothing(tiny_engine: EngineFolder, tiny_spec: Path, tiny_out: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in tiny_engine.folder.iterdir() if p.suffix == ".onnx"}
    events: list[str] = []
    listener = BuildCallbacks(
        lambda s: events.append(f"start {s.name}"), lambda s, seconds, fresh: events.append(f"{s.name} {fresh}")
    )
    again = build(plan(load_spec(tiny_spec), tiny_out), listener)
    assert again.fresh == ()
    assert again.engine.folder == tiny_engine.folder
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert events == [e for s in STAGES for e in (f"start {s}", f"{s} False")]


def test_int8_shares_what_it_does_not_change(
    tiny_engine: EngineFolder, tiny_engine_int8: EngineFolder, tiny_out: Path, tiny_spec: Path
) -> None:
    fp32, int8 = tiny_engine.manifest, tiny_engine_int8.manifest
    assert fp32.fingerprint != int8.fingerprint
    same = {s for s in STAGES if fp32.stages[s].key == int8.stages[s].key}
    assert same == {"condition", "image"}
    assert int8.files["target.onnx"].size < 0.5 * fp32.files["target.onnx"].size
    build(plan(load_spec(tiny_spec), tiny_out))
    assert open_engine(tiny_out / "tiny").manifest.fingerprint == fp32.fingerprint
    build(plan(with_precision(load_spec(tiny_spec), "int8"), tiny_out))
    assert open_engine(tiny_out / "tiny").manifest.fingerprint == int8.fingerprint


CHANGES: list[tuple[str, Callable[[Path], None], list[str]]] = [
    ("nothing", lambda spec: None, []),
    ("target weights", lambda spec: flip(spec.parent / "target.safetensors"), ["condition", "target", "draft"]),
    ("draft weights", lambda spec: flip(spec.parent / "draft.safetensors"), ["draft"]),
    ("image weights", lambda spec: flip(spec.parent / "vq.safetensors"), ["image"]),
    ("vocabulary", lambda spec: edit(spec.parent / "vocab.json", '"apple"', '"pear"'), ["condition"]),
    ("draft length", lambda spec: edit(spec, "length: 3", "length: 2"), ["draft"]),
    ("precision", lambda spec: edit(spec, "fp32", "int8"), ["target", "draft"]),
    ("neighbours", lambda spec: edit(spec, "tokenizer: vq,", "tokenizer: vq, neighbours: 5,"), ["image"]),
    ("batch", lambda spec: edit(spec, "max_batch: 4", "max_batch: 2"), []),
    ("schedule", lambda spec: edit(spec, "delta: 1.1", "delta: 1.3"), []),
    ("a file's name", lambda spec: _rename_target(spec), []),
]


def _rename_target(spec: Path) -> None:
    (spec.parent / "target.safetensors").rename(spec.parent / "other.safetensors")
    edit(spec, "target.safetensors", "other.safetensors")


@pytest.mark.parametrize(("change", "stages"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_what_a_change_costs(
    tiny_engine: EngineFolder,
    tiny_out: Path,
    copy: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    stages: list[str],
) -> None:
    """From the fp32 build alone: which stages would run, and whether it would be another engine."""
    out = tmp_path / "engines"
    (out / ".cache").mkdir(parents=True)
    for name, stage in tiny_engine.manifest.stages.items():
        (out / ".cache" / f"{name}-{stage.key}").symlink_to(tiny_out / ".cache" / f"{name}-{stage.key}")
    change(copy)
    planned = plan(load_spec(copy), out)
    assert to_run(planned) == stages
    same = not stages and load_spec(copy).spec.engine.max_batch == 4
    assert (planned.fingerprint == tiny_engine.manifest.fingerprint) == same


def test_tools_and_code_count(
    tiny_spec: Path, tiny_engine: EngineFolder, tiny_out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "tool_versions", lambda names: {"torch": "99"})
    assert to_run(plan(load_spec(tiny_spec), tiny_out)) == STAGES
    monkeypatch.undo()
    monkeypatch.setattr(plan_module, "code_digest", lambda stage: "another" if stage == "image" else code_digest(stage))
    assert to_run(plan(load_spec(tiny_spec), tiny_out)) == ["image"]
    monkeypatch.undo()
    assert to_run(plan(load_spec(tiny_spec), tiny_out)) == []


def test_run_time_values_reach_the_manifest_without_a_stage(
    copy: Path, tiny_engine: EngineFolder, tiny_out: Path, tmp_path: Path
) -> None:
    out = tmp_path / "engines"
    shutil.copytree(tiny_out, out, ignore=shutil.ignore_patterns(".tmp", ".locks"))
    edit(copy, "delta: 1.1", "delta: 1.3")
    edit(copy, "cfg_scale: 2.0", "cfg_scale: 4.0")
    built = build(plan(load_spec(copy), out))
    assert built.fresh == ()
    manifest = open_engine(out / "tiny").manifest
    assert manifest.fingerprint == tiny_engine.manifest.fingerprint
    assert manifest.spec["schedule"]["delta"] == 1.3
    assert manifest.spec["sampling"]["cfg_scale"] == 4.0


def test_a_changed_tokenizer_runs_one_stage(
    copy: Path, tiny_engine: EngineFolder, tiny_out: Path, tmp_path: Path
) -> None:
    out = tmp_path / "engines"
    shutil.copytree(tiny_out, out, ignore=shutil.ignore_patterns(".tmp", ".locks"))
    flip(copy.parent / "vq.safetensors")
    built = build(plan(load_spec(copy), out))
    assert built.fresh == ("image",)
    assert built.engine.manifest.fingerprint != tiny_engine.manifest.fingerprint
    assert built.engine.manifest.files["target.onnx"] == tiny_engine.manifest.files["target.onnx"]
    tiny_engine.verified()


def test_the_command(tiny_engine: EngineFolder, tiny_out: Path, tiny_spec: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "coolsd_rt.cli", "build", str(tiny_spec), "--out", str(tiny_out), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    dry = run("--dry-run", "--precision", "int8", "--json")
    document = json.loads(dry.stdout)
    assert dry.returncode == 0
    assert [s["stage"] for s in document["stages"]] == STAGES
    assert document["precision"] == "int8"
    assert "cached" in run("--dry-run").stdout
    done = run()
    assert done.returncode == 0
    assert "image: unchanged, cached" in done.stderr
    assert tiny_engine.manifest.fingerprint in done.stdout


def test_a_plan_needs_no_torch_and_writes_nothing(tiny_spec: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from coolsd_rt.spec import load_spec;"
        "from coolsd_rt.workflows.build.run import plan; plan(load_spec(sys.argv[1]), Path(sys.argv[2]));"
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tiny_spec), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out").exists()


def test_writing_the_tiny_spec_twice_gives_the_same_files(tiny_spec: Path, tmp_path: Path) -> None:
    """Or no test above would mean anything."""
    again = write_spec(tmp_path / "again")
    for name in ("target", "draft", "vq"):
        path = f"{name}.safetensors"
        assert (again.parent / path).read_bytes() == (tiny_spec.parent / path).read_bytes()
