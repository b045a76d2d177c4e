"""Real engines from TensorRT-RTX, built on a CPU: what is in them, and what a build says when it cannot be."""

from __future__ import annotations

import _thread
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
trt = pytest.importorskip("tensorrt_rtx")

from onnx import helper  # noqa: E402

from coolsd_rt.backends.tensorrt import build as build_module  # noqa: E402
from coolsd_rt.backends.tensorrt import package as package_module  # noqa: E402
from coolsd_rt.backends.tensorrt.build import BuildOptions, BuiltEngine, SourceGraph, build_engine  # noqa: E402
from coolsd_rt.backends.tensorrt.facts import Facts  # noqa: E402
from coolsd_rt.backends.tensorrt.log import make_log  # noqa: E402
from coolsd_rt.backends.tensorrt.model import Scratch, TrtModel, make_runtime  # noqa: E402
from coolsd_rt.backends.tensorrt.profiles import profiles  # noqa: E402
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError  # noqa: E402
from coolsd_rt.export.tensorrt_graph import write  # noqa: E402
from tests.backends.tensorrt.graphs import TINY, XL, Case, case  # noqa: E402

NO_GPU = not torch.cuda.is_available()


Heard = list[tuple[str, int, int]]
Builds = Callable[[str, str], tuple[BuiltEngine, Heard]]


@pytest.fixture(scope="module")
def target() -> Case:
    return case("target", "bf16")


@pytest.fixture(scope="module")
def built() -> Builds:
    """built(name, precision): the graph's engine, built once, and the progress that was heard meanwhile."""

    @cache
    def build(name: str, precision: str) -> tuple[BuiltEngine, Heard]:
        heard: Heard = []
        return case(name, precision).build(on_progress=lambda *step: heard.append(step)), heard

    return build


@pytest.mark.parametrize(
    ("name", "precision"),
    [("target", "bf16"), ("target", "fp32"), ("target", "int8"), ("draft", "bf16")],
)
def test_a_model_becomes_an_engine_that_updates_its_caches_in_place(name: str, precision: str, built: Builds) -> None:
    facts = built(name, precision)[0].facts
    layers, compiled = facts.details["layers"], facts.details["compiled"]
    count = TINY.layers if name == "target" else TINY.draft_layers
    assert layers["KV_CACHE_UPDATE"] == 2 * count
    assert layers["ATTENTION_INPUT"] == count
    assert layers["ROTARY_EMBEDDING"] >= count
    assert ("DEQUANTIZE" in layers) == (precision == "int8")
    assert compiled["copied"] == []
    assert sum(compiled["attention"].values()) >= count  # fused kernels, at S = 1 at least
    assert Facts.from_dict(json.loads(json.dumps(facts.as_dict())), name) == facts


def test_layers_as_wide_as_llamagen_xl_become_an_engine_with_fused_attention() -> None:
    made = case("target", "bf16", XL)
    facts = made.build().facts
    assert made.sizes.capacity >= 120 + 1024
    assert facts.details["compiled"]["copied"] == []
    assert sum(facts.details["compiled"]["attention"].values()) == XL.layers * len(facts.profiles) == 6


@pytest.mark.parametrize("name", ["condition", "image"])
def test_condition_and_image_become_engines(name: str, built: Builds) -> None:
    made, _ = built(name, "bf16")
    assert made.data.nbytes == made.facts.details["bytes"] > 1000
    assert made.facts.profiles[0].name == "whole"


def test_a_cache_whose_keys_are_multiplied_would_be_copied_in_every_step(
    target: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why `tune_attention` is there. Should this fail, a newer TensorRT-RTX may do without it."""
    monkeypatch.setattr(build_module, "tune_attention", lambda trt, network: 0)
    assert target.build().facts.details["compiled"]["copied"] == ["k_0", "k_1"]


def test_progress_is_heard_step_by_step(built: Builds) -> None:
    _, heard = built("target", "bf16")
    assert len(heard) > 20
    assert all(1 <= step <= steps for _, step, steps in heard)
    assert "Building engine" in {phase for phase, _, _ in heard}


def test_an_interrupt_ends_the_build_and_the_next_one_is_whole(target: Case) -> None:
    heard: list[str] = []

    def interrupt(phase: str, step: int, steps: int) -> None:
        heard.append(phase)
        if len(heard) == 10:
            _thread.interrupt_main()
            time.sleep(1)  # the main thread looks up ten times meanwhile

    with pytest.raises(KeyboardInterrupt):
        target.build(on_progress=interrupt)
    assert len(heard) == 10
    assert target.build().data.nbytes > 1000


def test_what_a_listener_raises_ends_the_build_and_comes_through(target: Case) -> None:
    heard: list[str] = []

    def fail(phase: str, step: int, steps: int) -> None:
        heard.append(phase)
        raise CoolsdError("no space left")

    with pytest.raises(CoolsdError, match="no space left"):
        target.build(on_progress=fail)
    assert len(heard) == 1


def test_a_graph_with_its_weights_beside_it_is_built_from_its_path(target: Case, built: Builds, tmp_path: Path) -> None:
    path = write(target.model, tmp_path / "target.onnx", largest=1)
    assert (tmp_path / "target.onnx.data").is_file()
    known = profiles(target.contract, target.sizes)
    made = build_engine(SourceGraph("target", path, target.contract, "bf16"), known, flavour="tensorrt-rtx")
    assert made.facts.details["layers"] == built("target", "bf16")[0].facts.details["layers"]


def test_an_engine_can_be_aimed_at_one_kind_of_gpu(target: Case) -> None:
    assert target.build(BuildOptions(capabilities=("8.9",))).facts.capabilities == ("8.9",)
    with pytest.raises(UserError, match=r"compute capabilities: expected only .*8\.9.*12\.0.*found 3\.5"):
        target.build(BuildOptions(capabilities=("3.5",)))


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_without_a_gpu_an_engine_is_for_all_of_them(built: Builds) -> None:
    assert built("target", "bf16")[0].facts.capabilities == ()


def one_line(error: CoolsdError, capfd: Any) -> str:
    """The message, if it is one line and nothing else was said."""
    assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")
    return str(error)


def test_a_node_that_tensorrt_does_not_take_is_named(target: Case, capfd: Any) -> None:
    model = type(target.model).FromString(target.model.SerializeToString())
    model.graph.node.append(helper.make_node("Det", ["logits"], ["odd"], name="node_odd"))
    with pytest.raises(CoolsdError) as caught:
        replace(target, model=model).build()
    assert "Det node_odd" in one_line(caught.value, capfd)


def test_a_failed_build_says_why_and_nothing_else(target: Case, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler writes its reason to the standard error by itself."""
    narrow = replace(target, sizes=replace(target.sizes, rows=2))
    monkeypatch.setattr(build_module, "tune_attention", lambda trt, network: 0)
    monkeypatch.setattr("coolsd_rt.backends.tensorrt.profiles.LEAST_ROWS", 1)
    with pytest.raises(CoolsdError, match=r"expected an engine from TensorRT, found .*dedicated kernel") as caught:
        narrow.build()
    one_line(caught.value, capfd)


def test_another_precision_than_asked_is_not_built(target: Case) -> None:
    with pytest.raises(CoolsdError, match="graph target: int8 matrices: expected some, found 0"):
        replace(target, precision="int8").build()


def test_a_missing_package_is_named_with_what_to_type(target: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(package_module._MODULES, "tensorrt-rtx", "tensorrt_not_there")
    with pytest.raises(MissingExtra, match=r"tensorrt_not_there is not installed.*pip install .*\[tensorrt-rtx\]"):
        target.build()


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_loading_without_a_driver_names_it_and_the_cpu_backend(built: Builds, capfd: Any) -> None:
    """TensorRT-RTX makes its runtime here, and refuses the engine."""
    made, _ = built("condition", "bf16")
    log = make_log(trt)
    runtime = make_runtime(trt, log)
    contract, scratch = case("condition", "bf16").contract, Scratch(torch.device("cpu"))
    with pytest.raises(CoolsdError) as caught:
        TrtModel(trt, log, runtime, bytes(made.data), contract, made.facts, "condition", scratch)
    line = one_line(caught.value, capfd)
    assert "driver version is insufficient" in line
    assert "onnxruntime" in line
