"""A build for TensorRT-RTX on a machine without a GPU: what is compiled, what ships, and that nothing means it yet."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from coolsd_rt.backends.tensorrt.package import local_gpu
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.workflows.build.run import BuildCallbacks, build, plan
from coolsd_rt.workflows.opening import load_engine
from tests.tiny import TARGET, write_spec
from tests.workflows.building import edit
from tests.workflows.family_pipelines import write_pipeline

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed"),
    pytest.mark.skipif(local_gpu() is not None, reason="for a machine without a GPU"),
]
GRAPHS = ("condition", "target", "draft", "image")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_spec(tmp_path_factory.mktemp("spec"))
    edit(path, "engine: {precision: fp32", "engine: {backend: tensorrt-rtx, precision: fp16")
    return path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def folder(spec: Path, out: Path) -> EngineFolder:
    phases: list[str] = []
    built = build(plan(load_spec(spec), out), BuildCallbacks(compiling=lambda phase, done, steps: phases.append(phase)))
    assert phases
    return built.engine


def test_heads_without_a_kernel_end_a_build_before_it_begins(spec: Path, tmp_path: Path) -> None:
    """Not after minutes of exports."""
    planned = plan(load_spec(spec), tmp_path / "engines")
    odd = replace(planned.description, dims=replace(planned.description.dims, head_dim=100))
    begun: list[str] = []
    with pytest.raises(UserError, match=r"graph target: expected heads of a multiple of 8 numbers in fp16, found 100"):
        build(replace(planned, description=odd), BuildCallbacks(started=lambda stage: begun.append(stage.name)))
    assert begun == []
    assert not (tmp_path / "engines").exists()


def test_engines_ship_and_graphs_stay_in_the_cache(folder: EngineFolder) -> None:
    assert set(folder.manifest.files) == {f"{name}.engine" for name in GRAPHS} | {"vocab.json", "neighbours.npy"}
    assert set(GRAPHS) <= set(folder.manifest.stages)
    folder.verified()


def test_texts_have_the_graphs_of_their_networks_alone(tmp_path: Path) -> None:
    """Neighbours of tokens are a table in the engine, and no graph that could be compiled."""
    path = write_pipeline(tmp_path, "llama")
    edit(path, "engine: {max_batch: 4", "engine: {backend: tensorrt-rtx, precision: bf16, max_batch: 4")
    made = build(plan(load_spec(path), tmp_path / "engines")).engine
    prompts = {"tokenizer.json", "chat_template.jinja"}
    graphs = {f"{name}.engine" for name in GRAPHS if name != "image"}
    assert set(made.manifest.files) == graphs | prompts | {"neighbours.npy"}
    made.verified()
    layers = made.manifest.stages["compile_target"].facts["target"]["details"]["layers"]
    assert layers["ATTENTION_INPUT"] == layers["KV_CACHE_UPDATE"] / 2


def test_the_layers_are_those_of_a_cache_in_place(folder: EngineFolder) -> None:
    facts = folder.manifest.stages["compile_target"].facts["target"]
    assert facts["flavour"] == "tensorrt-rtx"
    assert facts["capabilities"] == []  # any that the package supports: there was no GPU to build for
    layers = facts["details"]["layers"]
    assert layers["KV_CACHE_UPDATE"] == 2 * TARGET.layers
    assert layers["ROTARY_EMBEDDING"] >= TARGET.layers
    assert layers["ATTENTION_INPUT"] == TARGET.layers


def test_an_engine_that_is_not_proven_has_no_name(folder: EngineFolder, out: Path) -> None:
    """Its fingerprint finds it, the pipeline's name does not."""
    assert open_engine(folder.folder).manifest.fingerprint == folder.manifest.fingerprint
    assert not (out / "tiny" / "current").exists()
    folder.make_current()
    assert open_engine(out / "tiny").manifest.fingerprint == folder.manifest.fingerprint
    (out / "tiny" / "current").unlink()


def test_it_says_that_there_is_no_gpu(folder: EngineFolder) -> None:
    with pytest.raises(CoolsdError, match=r"an NVIDIA GPU.*onnxruntime"):
        load_engine(folder.verified())


def test_another_batch_compiles_again_and_exports_nothing(spec: Path, folder: EngineFolder, out: Path) -> None:
    text = spec.read_text()
    edit(spec, "max_batch: 4", "max_batch: 2")
    planned = plan(load_spec(spec), out)
    spec.write_text(text)
    assert {s.name for s in planned.stages if not s.cached} == {f"compile_{name}" for name in GRAPHS}
