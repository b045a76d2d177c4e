"""A build: what it depends on, what it leaves when it fails, and that two at once are one."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.models.header import read_config
from coolsd_rt.spec import SpecError, load_spec
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.workflows import build as module
from coolsd_rt.workflows.build import Listener, Plan, build, code_digest, plan, with_precision
from tests.tiny import LENGTH, write_spec, write_weights

STAGES = ["condition", "target", "draft", "image"]


@pytest.fixture
def copy(tiny_spec: Path, tmp_path: Path) -> Path:
    """The tiny spec and its files in a folder that a test may change."""
    shutil.copytree(tiny_spec.parent, tmp_path / "spec")
    return tmp_path / "spec" / tiny_spec.name


@pytest.fixture
def warm(tiny_engine: EngineFolder, tiny_out: Path, tmp_path: Path) -> Path:
    """An output folder with every stage but the image's done, and no engine."""
    out = tmp_path / "engines"
    shutil.copytree(tiny_out / ".cache", out / ".cache")
    for folder in (out / ".cache").glob("image-*"):
        shutil.rmtree(folder)
    return out


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def flip(path: Path) -> None:
    """Change one weight, and nothing else."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def to_run(planned: Plan) -> list[str]:
    return [s.name for s in planned.stages if not s.cached]


def left(out: Path) -> list[str]:
    """What stands in an output folder but finished stages and locks."""
    temps = list((out / ".tmp").glob("*")) if (out / ".tmp").is_dir() else []
    return [p.name for p in (*temps, *(p for p in out.glob("*") if p.name not in (".cache", ".locks", ".tmp")))]


def test_a_build_is_whole(tiny_engine: EngineFolder, tiny_spec: Path, tiny_out: Path) -> None:
    manifest = tiny_engine.manifest
    assert list(manifest.stages) == STAGES
    files = {"condition.onnx", "vocab.json", "target.onnx", "draft.onnx", "propose.onnx", "image.onnx"}
    assert set(manifest.files) == files
    assert manifest.contract["dims"]["tokens"] == 16
    assert manifest.contract["side"] == 8
    assert manifest.contract["draft_length"] == LENGTH
    assert manifest.spec["sampling"]["cfg_scale"] == 2.0
    assert {"torch", "onnx", "onnxruntime", "coolsd-rt"} <= set(manifest.tools)
    assert manifest.stages["target"].facts["target"]["smoke_error"] < 1e-4
    assert tiny_engine.folder.parent == tiny_out / "tiny"
    tiny_engine.verified()


def test_building_again_runs_nothing(tiny_engine: EngineFolder, tiny_spec: Path, tiny_out: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in tiny_engine.folder.iterdir() if p.suffix == ".onnx"}
    events: list[str] = []
    listener = Listener(
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
    ("batch", lambda spec: edit(spec, "max_batch: 4", "max_batch: 2"), []),
    ("schedule", lambda spec: edit(spec, "delta: 1.1", "delta: 1.3"), []),
    ("a file's name", lambda spec: _rename_target(spec), []),
]


def _rename_target(spec: Path) -> None:
    (spec.parent / "target.safetensors").rename(spec.parent / "other.safetensors")
    edit(spec, "target.safetensors", "other.safetensors")


@pytest.mark.parametrize(("change", "stages"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_what_a_change_costs(
    tiny_engine: EngineFolder, tiny_out: Path, copy: Path, tmp_path: Path, change: Callable[[Path], None],
    stages: list[str],
) -> None:  # fmt: skip
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
    monkeypatch.setattr(module, "code_digest", lambda: "another")
    assert to_run(plan(load_spec(tiny_spec), tiny_out)) == STAGES
    monkeypatch.undo()
    assert to_run(plan(load_spec(tiny_spec), tiny_out)) == []
    assert len(code_digest()) == 16


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


class TestTheFilesDoNotFit:
    """Found before anything runs, at the spec's line where it has one."""

    def reweigh(self, spec: Path, name: str, **config: object) -> None:
        path = spec.parent / f"{name}.safetensors"
        tensors = load_file(str(path))
        holder = torch.nn.Module()
        holder.state_dict = lambda: tensors  # type: ignore[method-assign,assignment]
        write_weights(path, holder, read_config(path) | config)

    def refused(self, spec: Path, out: Path, *words: str) -> None:
        with pytest.raises(UserError) as caught:
            build(plan(load_spec(spec), out))
        for word in words:
            assert word in str(caught.value)
        assert "\n" not in str(caught.value)
        assert left(out) == []

    def test_a_draft_above_the_image(self, copy: Path, tmp_path: Path) -> None:
        edit(copy, "length: 3", "length: 17")
        self.refused(copy, tmp_path / "o", "tiny.yaml:4: draft.length", "at most the image's 16 tokens", "found 17")

    def test_a_draft_of_none(self, copy: Path, tmp_path: Path) -> None:
        edit(copy, "length: 3", "length: 0")
        with pytest.raises(SpecError, match=r"draft\.length"):
            plan(load_spec(copy), tmp_path / "o")

    def test_another_vocabulary(self, copy: Path, tmp_path: Path) -> None:
        edit(copy.parent / "vocab.json", '"apple",', "")
        self.refused(copy, tmp_path / "o", "tiny.yaml:6: condition.vocab", "words 9", "found 8")

    def test_another_prefix(self, copy: Path, tmp_path: Path) -> None:
        edit(copy.parent / "vocab.json", '"prefix": 3', '"prefix": 4')
        self.refused(copy, tmp_path / "o", "condition.vocab", "prefix 3", "found 4")

    def test_another_codebook(self, copy: Path, tmp_path: Path) -> None:
        self.reweigh(copy, "vq", codebook_size=64)
        self.refused(copy, tmp_path / "o", "tiny.yaml:5: image.weights", "codebook_size 32", "found 64")

    def test_another_width(self, copy: Path, tmp_path: Path) -> None:
        self.reweigh(copy, "draft", dim=128)
        self.refused(copy, tmp_path / "o", "tiny.yaml:4: draft.weights", "dim 64", "found 128")

    def test_a_config_of_nothing(self, copy: Path, tmp_path: Path) -> None:
        self.reweigh(copy, "target", grid=None)
        self.refused(copy, tmp_path / "o", "target.safetensors: config: grid", "found nothing")
        self.reweigh(copy, "target", grid=4, heads=0)
        self.refused(copy, tmp_path / "o", "config: heads", "found 0")

    def test_weights_that_are_not(self, copy: Path, tmp_path: Path) -> None:
        path = copy.parent / "target.safetensors"
        whole = path.read_bytes()
        path.write_bytes(whole[:-10])
        self.refused(copy, tmp_path / "o", "target.safetensors", "truncated")
        torch.save({"a": torch.zeros(1)}, path)
        self.refused(copy, tmp_path / "o", "target.safetensors", "torch.save")
        path.unlink()
        with pytest.raises(UserError, match=r"tiny.yaml:3: target.weights.*found nothing"):
            load_spec(copy)

    def test_a_wrong_shape(self, copy: Path, warm: Path) -> None:
        """Shapes are compared when the stage runs; nothing is left of it."""
        path = copy.parent / "vq.safetensors"
        config, tensors = read_config(path), load_file(str(path))
        tensors["post_quant_conv.bias"] = torch.zeros(9)
        holder = torch.nn.Module()
        holder.state_dict = lambda: tensors  # type: ignore[method-assign,assignment]
        write_weights(path, holder, config)
        self.refused(copy, warm, "post_quant_conv.bias", "shape [8]", "found [9]")


class TestABuildThatFails:
    """Finished stages stay for the next time; nothing looks like an engine."""

    def test_a_full_disk(self, copy: Path, warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write = Path.write_bytes

        def full(path: Path, data: bytes) -> int:
            if path.name != "image.onnx":
                return write(path, data)
            write(path, data[:1000])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(CoolsdError, match="no space left on the disk"):
            build(plan(load_spec(copy), warm))
        assert left(warm) == []
        monkeypatch.undo()
        assert build(plan(load_spec(copy), warm)).fresh == ("image",)

    def test_a_graph_that_is_wrong(self, copy: Path, warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The short run beside torch sees a graph that computes something else."""
        from coolsd_rt.export.graphs import ImageGraph
        from coolsd_rt.workflows import stages

        class Darker(ImageGraph):
            def forward(self, codes: torch.Tensor) -> torch.Tensor:
                return super().forward(codes) // (1 + int(torch.compiler.is_exporting()))

        monkeypatch.setattr(stages, "ImageGraph", Darker)
        with pytest.raises(CoolsdError, match=r"graph image: pixels.*torch's numbers within 1"):
            build(plan(load_spec(copy), warm))
        assert left(warm) == []

    def test_weights_that_change_meanwhile(self, copy: Path, warm: Path) -> None:
        planned = plan(load_spec(copy), warm)
        flip(copy.parent / "vq.safetensors")
        with pytest.raises(CoolsdError, match=r"image.weights.*as when the build began"):
            build(planned)
        assert left(warm) == []

    def test_a_missing_extra(self, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Said before anything is written; and not at all when every stage is cached."""
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
        with pytest.raises(MissingExtra, match=r"onnx.*coolsd-rt\[build\]"):
            build(plan(load_spec(copy), tmp_path / "o"))
        assert left(tmp_path / "o") == []

    def test_an_interrupted_one(self, copy: Path, warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from coolsd_rt.workflows import stages

        def interrupt(*args: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(stages, "smoke", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(plan(load_spec(copy), warm))
        assert left(warm) == []


class TestProcesses:
    """The command itself, several at once, and killed."""

    def start(self, spec: Path, out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "coolsd_rt.cli", "build", str(spec), "--out", str(out), "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def working(self, out: Path) -> None:
        """Wait until a stage's temporary folder is there."""
        while not (out / ".tmp").is_dir() or not list((out / ".tmp").iterdir()):
            time.sleep(0.01)

    def test_two_at_once_end_as_one(self, copy: Path, warm: Path) -> None:
        both = [self.start(copy, warm), self.start(copy, warm)]
        documents = []
        for process in both:
            out, err = process.communicate()
            assert process.returncode == 0, err
            documents.append(json.loads(out))
        assert documents[0]["folder"] == documents[1]["folder"]
        assert sorted(d["stages"]["image"] for d in documents) == ["cached", "run"]
        open_engine(warm / "tiny").verified()
        assert left(warm) == ["tiny"]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
    def test_a_killed_one_leaves_nothing_whole(self, copy: Path, warm: Path, number: int, code: int) -> None:
        process = self.start(copy, warm)
        self.working(warm)
        os.kill(process.pid, number)
        _, err = process.communicate()
        assert process.returncode == code, err
        assert not (warm / "tiny").exists()
        if number == signal.SIGINT:
            assert left(warm) == []
            assert "Traceback" not in err
        with pytest.raises(UserError):
            open_engine(warm / "tiny")
        assert build(plan(load_spec(copy), warm)).fresh == ("image",)
        assert left(warm) == ["tiny"]
        open_engine(warm / "tiny").verified()


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
        "from coolsd_rt.workflows.build import plan; plan(load_spec(sys.argv[1]), Path(sys.argv[2]));"
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
