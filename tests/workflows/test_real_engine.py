"""generate and parity on a real engine: ONNX Runtime beside eager PyTorch, and in a process that has no torch."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import coolsd_rt
from coolsd_rt.checkpoints.load import load_tokenizer
from coolsd_rt.spec import load_spec, with_overrides
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.build import stages
from coolsd_rt.workflows.generate.run import GenerateConfig, generate
from coolsd_rt.workflows.parity.run import parity
from tests.tiny import LENGTH, SIDE, TARGET, VOCABULARY
from tools.demo import benchmark as demo
from tools.demo.report import EAGER, PLAIN

ROOT = Path(coolsd_rt.__file__).parents[1]

# Every import of what a base install with the cpu extra does not have fails, and is put on record.
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "onnx_ir", "safetensors", "scipy"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def engines(tiny_engine: EngineFolder, tiny_engine_int8: EngineFolder, tiny_out: Path, tmp_path: Path) -> Path:
    """A copy of the built engines, to write into; `tiny` is fp32 now."""
    copy = tmp_path / "engines"
    shutil.copytree(tiny_out, copy)
    (copy / "tiny" / "current").write_text(f"{tiny_engine.manifest.fingerprint}\n")
    return copy


def bare(*words: object, folder: Path) -> subprocess.Popen[str]:
    """`coolsd-rt ...` in a process without torch and onnx."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(BLOCKER)
    path = os.pathsep.join([str(folder / "site"), str(ROOT)])
    command = [sys.executable, "-m", "coolsd_rt.cli", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, env=env, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_generate_needs_neither_torch_nor_onnx(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    prompts = ["-p", "red apple", "-p", "blue star", "-n", 3]
    process = bare("generate", tiny_engine.folder, *prompts, "--json", "--threads", 1, folder=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    document = json.loads(out)
    assert len(document["images"]) == 6
    here = generate(tiny_engine.folder, GenerateConfig(["red apple", "blue star"], tmp_path / "here", 3, threads=1))
    for said, drawn in zip(document["images"], here.drawn, strict=True):
        with Image.open(tmp_path / said["path"]) as image, Image.open(drawn.path) as mine:
            assert image.size == (SIDE, SIDE)
            assert image.tobytes() == mine.tobytes()


def test_the_blocker_blocks(tmp_path: Path) -> None:
    process = bare("build", "x.yaml", folder=tmp_path)
    process.communicate()
    code = "import torch"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert "torch is blocked" in done.stderr


def test_ctrl_c_in_the_middle_leaves_whole_images_only(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    process = bare("generate", tiny_engine.folder, "-p", "red apple", "-n", 100000, folder=tmp_path)
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    files = sorted((tmp_path / "out").iterdir())
    assert first.strip() == f"out/{files[0].name}"
    assert all(f.suffix == ".png" and not f.name.startswith(".") for f in files)
    for file in files:
        with Image.open(file) as image:
            image.load()


def test_the_fp32_engine_is_the_reference(engines: Path, tiny_spec: Path) -> None:
    outcome = parity(engines / "tiny", images=12, spec_file=tiny_spec, threads=1)
    assert outcome.failures == ()
    figures = outcome.graphs.as_dict()
    assert set(figures) == {"condition", "target", "target_features", "draft", "image", "propose"}
    assert 0 < figures["target"]["max_error"] < 1e-4
    assert 0 < figures["draft"]["max_error"] < 1e-4
    assert figures["propose"]["max_error"] < 1e-5
    assert figures["propose"]["alike"] == 1
    receipt = open_engine(engines / "tiny").manifest.parity
    assert receipt is not None
    assert receipt["passed"] is True


def test_the_int8_engine_is_near_and_says_how_far(
    engines: Path, tiny_engine_int8: EngineFolder, tiny_spec: Path
) -> None:
    folder = engines / "tiny" / tiny_engine_int8.manifest.fingerprint
    outcome = parity(folder, images=4, spec_file=tiny_spec, threads=1)
    figures = outcome.graphs.as_dict()
    assert outcome.precision == "int8"
    assert 1e-3 < figures["target"]["mean_tv"] < 0.2
    assert figures["image"]["max_error"] <= 1
    assert outcome.passed == (figures["target"]["mean_tv"] <= 0.05)


@pytest.mark.parametrize("options", [{"sampling.top_k": 5}, {"sampling.top_p": 0.8}, {"sampling.cfg_scale": 1.0}])
def test_other_sampling_runs_too(tiny_engine: EngineFolder, tmp_path: Path, options: dict[str, float]) -> None:
    report = generate(tiny_engine.folder, GenerateConfig(["red apple"], tmp_path, 3, overrides=options, threads=1))
    assert len(report.statistics.acceptance_by_position) == LENGTH
    assert report.tokens == 3 * TARGET.tokens


def test_a_build_keeps_one_neighbour_more_than_may_lend(tiny_spec: Path, tmp_path: Path) -> None:
    """LANTERN's own residual reads it; with `neighbours: 5` five may lend under any residual."""
    loaded = load_spec(tiny_spec)
    codebook = load_tokenizer(loaded.files["image.weights"]).quantize.embedding.weight.numpy()
    for wanted, columns in ((5, 6), (TARGET.vocab - 2, TARGET.vocab - 1), (TARGET.vocab, TARGET.vocab - 1)):
        stages.write_neighbours(tmp_path, codebook, wanted)
        near = np.load(tmp_path / "neighbours.npy").astype(np.int64)
        assert near.shape == (TARGET.vocab, columns)
        k = min(wanted, TARGET.vocab - 1)
        rule = {"acceptance.rule": "lantern", "acceptance.bound": 0.1, "acceptance.neighbours": k}
        assert loaded.spec.image is not None
        spec = loaded.spec.model_copy(update={"image": loaded.spec.image.model_copy(update={"neighbours": wanted})})
        for kind in ("lantern", "optimal"):
            settings = drawing.settings_of(with_overrides(spec, rule | {"resampler.kind": kind}), near)
            assert settings.law.tolerance is not None
            assert settings.law.tolerance.lending == k


def test_lantern_runs_on_the_engines_own_neighbours(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    near = opening.load_neighbours(tiny_engine.verified())
    assert near is not None
    assert near.shape == (TARGET.vocab, TARGET.vocab - 1)  # fewer codes than image.neighbours
    assert [sorted([x, *row]) == list(range(TARGET.vocab)) for x, row in enumerate(near.tolist())] == [True] * 32
    lengths = []
    for factor in (1.0, 8.0):
        rule = {"acceptance.rule": "lantern_pp", "acceptance.factor": factor, "acceptance.neighbours": 20}
        report = generate(
            tiny_engine.folder, GenerateConfig(["red apple"], tmp_path / str(factor), 4, overrides=rule, threads=1)
        )
        lengths.append(report.statistics.mean_acceptance_length)
    assert lengths[0] < lengths[1]


def test_the_benchmark_measures_both_engines_beside_eager(
    engines: Path, tiny_spec: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--runs", "2", "--batch", "2", "--threads", "1", "--spec", str(tiny_spec)]
    files = ["--json", str(tmp_path / "f.json"), "--markdown", str(tmp_path / "f.md"), "-p", VOCABULARY.words[-1]]
    monkeypatch.setattr(sys, "argv", ["demo", str(engines / "tiny"), *words, *files])
    monkeypatch.chdir(ROOT)
    demo.main()
    out = capsys.readouterr().out
    document = json.loads((tmp_path / "f.json").read_text())
    rows = [(w["group"], w["name"]) for w in document["ways"]]
    assert rows[0] == (EAGER, PLAIN)
    assert [g for g, _ in rows[1:]] == ["fp32"] * 6 + ["int8"] * 6
    assert all(len(w["seconds"]) == 2 for w in document["ways"])
    assert document["ways"][0]["versus_eager"] == 1.0
    assert set(document["memory"]) == {"fp32", "int8"}
    assert all(20e6 < peak < 400e6 for peak in document["memory"].values())
    assert "vs own plain" in out
    assert out.count("slower than plain") == len(document["losing"])
    assert (tmp_path / "f.md").read_text().count("\n| ") >= 13 + len(document["goals"])
    assert open_engine(engines / "tiny").manifest.build_view["engine"]["precision"] == "fp32"
