"""Graphs whose weights stand beside them, and sizes that TensorRT-RTX has no kernel for: real builds on a CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
trt = pytest.importorskip("tensorrt_rtx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from coolsd_rt.backends.tensorrt import build as build_module  # noqa: E402
from coolsd_rt.backends.tensorrt.build import BuildOptions, SourceGraph, build_engine  # noqa: E402
from coolsd_rt.backends.tensorrt.log import make_log  # noqa: E402
from coolsd_rt.backends.tensorrt.network import parse  # noqa: E402
from coolsd_rt.backends.tensorrt.profiles import profiles  # noqa: E402
from coolsd_rt.contract import GraphContract, TensorSpec  # noqa: E402
from coolsd_rt.errors import CoolsdError, UserError  # noqa: E402
from coolsd_rt.export.tensorrt_graph import for_tensorrt, write  # noqa: E402
from tests.backends.tensorrt.graphs import Case, case  # noqa: E402


@pytest.fixture(scope="module")
def target() -> Case:
    return case("target", "bf16")


def test_weights_beside_a_graph_are_read_by_tensorrt_alone(target: Case, tmp_path: Path) -> None:
    """No message holds them, so that none has to end at 2 GiB; the engine is that of the whole graph."""
    path = write(target.model, tmp_path / "target.onnx", largest=1)
    light = for_tensorrt(onnx.load(str(path), load_external_data=False), {"T": target.sizes.capacity})
    assert light.ByteSize() < path.with_name("target.onnx.data").stat().st_size / 4
    known = profiles(target.contract, target.sizes)
    found = build_engine(
        SourceGraph("target", light.SerializeToString(), target.contract, "bf16", beside=path),
        known,
        flavour="tensorrt-rtx",
    )
    wanted = target.build()
    assert found.facts.details["layers"] == wanted.facts.details["layers"]
    assert found.facts.details["compiled"] == wanted.facts.details["compiled"]
    assert abs(found.data.nbytes - wanted.data.nbytes) < 4096


def test_weights_that_are_not_beside_it_are_one_line(target: Case, tmp_path: Path) -> None:
    path = write(target.model, tmp_path / "target.onnx", largest=1)
    light = onnx.load(str(path), load_external_data=False).SerializeToString()
    path.with_name("target.onnx.data").unlink()
    with pytest.raises(CoolsdError, match=r"^graph target: expected a graph that TensorRT's parser accepts") as caught:
        parse(trt, make_log(trt), light, "target", path)
    assert "\n" not in str(caught.value)


def test_a_copy_is_made_tensor_by_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protobuf copies a message through its bytes: never the whole graph's."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", 3])
    weights = numpy_helper.from_array(np.arange(3, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 3])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10, producer_name="us")
    assert for_tensorrt(model, {}) == model
    assert for_tensorrt(model, {"T": 4}) != model


@pytest.mark.parametrize(
    ("width", "precision", "refused"), [(100, "bf16", True), (100, "fp32", False), (104, "fp16", False)]
)
def test_heads_without_a_kernel_are_refused_before_the_build(width: int, precision: str, refused: bool) -> None:
    """TensorRT-RTX 1.7.1 fails inside itself on them; LlamaGen-3B's are 100 wide."""
    cache = TensorSpec("k_0", "bfloat16", ("R", 4, "T", width))
    contract = GraphContract((cache,), (replace(cache, name="k_0_out"),))
    if refused:
        with pytest.raises(
            UserError, match=r"multiple of 8 numbers in bf16, found 100; build with engine.backend torch"
        ):
            build_module.check_heads("tensorrt-rtx", contract, precision, "target")
        build_module.check_heads("tensorrt", contract, precision, "target")  # it has them
    else:
        build_module.check_heads("tensorrt-rtx", contract, precision, "target")


def test_float32_is_float32(target: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT would take TF32 for it."""
    made: list[Any] = []
    config = build_module._config

    def kept(*args: Any) -> Any:
        made.append(config(*args))
        return made[-1]

    monkeypatch.setattr(build_module, "_config", kept)
    target.build(BuildOptions(capabilities=("8.9",)))
    assert not made[0].get_flag(trt.BuilderFlag.TF32)
