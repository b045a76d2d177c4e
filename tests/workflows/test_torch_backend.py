"""The backend `torch`, from a spec to images: the build's files, and the same tokens as ONNX Runtime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from coolsd_rt.backends.torch import backend, eager
from coolsd_rt.cli.build import engine_of
from coolsd_rt.errors import CoolsdError
from coolsd_rt.runtime.self_decoding import SelfDecodingSession
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.build.run import build, plan, with_engine
from coolsd_rt.workflows.opening import load_conditioner, load_engine, spec_of
from coolsd_rt.workflows.parity import run as parity_module
from coolsd_rt.workflows.parity.run import parity
from tests.workflows.building import edit


@pytest.fixture
def folder(copy: Path, tmp_path: Path) -> EngineFolder:
    edit(copy, "engine: {", "engine: {backend: torch, ")
    return build(plan(load_spec(copy), tmp_path / "engines")).engine


def codes(folder: EngineFolder) -> np.ndarray:
    verified = folder.verified()
    engine, conditioner = load_engine(verified), load_conditioner(verified)
    jobs = drawing.plan(["red apple", "blue star"], 2, 7, conditioner)
    return drawing.draw(engine, jobs, conditioner, drawing.settings_of(spec_of(folder))).codes


def test_an_engine_of_networks(folder: EngineFolder, copy: Path, tiny_engine: EngineFolder) -> None:
    weights = {f"{name}.safetensors" for name in ("target", "draft", "image")}
    assert set(folder.manifest.files) == {*weights, "vocab.json", "neighbours.npy"}
    kept, given = load_file(folder.folder / "target.safetensors"), load_file(copy.parent / "target.safetensors")
    assert all(np.array_equal(kept[k], given[k]) for k in given)
    np.testing.assert_array_equal(codes(folder), codes(tiny_engine))


def test_its_sessions_run_whole_requests(folder: EngineFolder) -> None:
    engine = load_engine(folder.verified())
    assert isinstance(engine.open(engine.encode_condition(np.zeros((2, 3), np.int64)), 32), SelfDecodingSession)


def test_half_precision_is_half(copy: Path, tmp_path: Path) -> None:
    """bf16 draws other images than fp32, from the same files."""
    edit(copy, "engine: {precision: fp32", "engine: {backend: torch, precision: bf16")
    folder = build(plan(load_spec(copy), tmp_path / "engines")).engine
    assert folder.manifest.contract["dtype"] == "bfloat16"
    assert codes(folder).shape == (4, 16)
    engine = load_engine(folder.verified())
    assert str(engine.encode_condition(np.zeros((2, 3), np.int64)).dtype) == "torch.bfloat16"


def test_a_gpu_that_is_not_there_is_one_line(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    edit(copy, "engine: {", "engine: {backend: torch, device: cuda, ")
    folder = build(plan(load_spec(copy), tmp_path / "engines")).engine
    with pytest.raises(CoolsdError, match=r"an NVIDIA GPU.*--device cpu --precision fp32"):
        load_engine(folder.verified())


def test_a_spec_for_a_gpu_is_not_built_to_be_drawn_without_one(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    edit(copy, "engine: {", "engine: {backend: torch, device: cuda, ")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CoolsdError, match=r"^drawing with .*: expected an NVIDIA GPU, found "):
        engine_of(copy, quiet=True)
    assert not (tmp_path / "engines").exists()


def test_an_engine_for_a_gpu_waits_for_its_proof(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built where there is none, it does not take the place of one that works; a proof puts it there."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    loaded, out = load_spec(copy), tmp_path / "engines"
    works = build(plan(with_engine(loaded, backend="torch"), out)).engine
    waiting = build(plan(with_engine(loaded, backend="torch", device="cuda"), out)).engine
    assert waiting.folder != works.folder
    assert open_engine(out / "tiny").folder == works.folder
    with pytest.raises(CoolsdError, match=r"^proving an engine for a GPU: expected an NVIDIA GPU, found "):
        parity(waiting.folder, images=2)
    monkeypatch.setattr(parity_module, "require_gpu", lambda what: None)
    monkeypatch.setattr(eager, "check_device", lambda device: None)
    monkeypatch.setattr(eager.TorchEngine, "to", lambda self, device, dtype: self)
    monkeypatch.setattr(backend, "with_triton", lambda engine: engine)
    assert parity(waiting.folder, images=2).passed
    assert open_engine(out / "tiny").folder == waiting.folder
