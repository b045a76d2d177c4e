"""Weights beside a graph: written one at a time, equal content once, and the same graph as with all of them in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from coolsd_rt.backends import LoadOptions
from coolsd_rt.backends.onnxruntime.graph import OrtGraph
from coolsd_rt.checkpoints.load import load_target, model_dims
from coolsd_rt.contract import GraphContract, TensorSpec, target_contract
from coolsd_rt.errors import CoolsdError
from coolsd_rt.export import external
from coolsd_rt.export.external import read, write
from coolsd_rt.export.graphs import TargetGraph
from coolsd_rt.export.hollow import hollow, streamed
from coolsd_rt.export.quantize import quantize
from coolsd_rt.export.torch_onnx import to_onnx, to_outline
from coolsd_rt.models.lazy import Lazy
from coolsd_rt.workflows.build.smoke import inputs, smoke


@pytest.fixture(scope="module")
def lazy_graph(tiny_spec: Path) -> tuple[TargetGraph, GraphContract]:
    network = load_target(tiny_spec.parent / "target.safetensors", lazy=True)
    return TargetGraph(network), target_contract(model_dims(network.cfg, None), "float32")


@pytest.fixture(scope="module")
def exported(lazy_graph: tuple[TargetGraph, GraphContract]) -> external.Outline:
    """Read only."""
    return to_outline(*lazy_graph)


@pytest.fixture
def outline(exported: external.Outline) -> external.Outline:
    return copied(exported)


def copied(outline: external.Outline) -> external.Outline:
    model = onnx.ModelProto()
    model.CopyFrom(outline.model)
    return external.Outline(model, dict(outline.weights))


@pytest.fixture(scope="module")
def whole(tiny_spec: Path, lazy_graph: tuple[TargetGraph, GraphContract]) -> onnx.ModelProto:
    """The graph of the network in memory."""
    return to_onnx(TargetGraph(load_target(tiny_spec.parent / "target.safetensors")), lazy_graph[1])


def test_an_outline_is_the_graph_without_its_large_weights(outline: external.Outline, whole: onnx.ModelProto) -> None:
    assert len(outline.weights) == 4  # wqkv and w13 of two layers; the others have too few numbers
    assert sum(len(t.raw_data) for t in outline.model.graph.initializer) < 0.4 * whole.ByteSize()
    wanted = {t.name: numpy_helper.to_array(t) for t in whole.graph.initializer}
    assert {t.name for t in outline.model.graph.initializer} == set(wanted)
    for tensor in outline.model.graph.initializer:
        assert np.array_equal(read(outline, tensor), wanted[tensor.name]), tensor.name
    assert [n.SerializeToString() for n in outline.model.graph.node] == [
        n.SerializeToString() for n in whole.graph.node
    ]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_beside_or_in_the_file_it_is_one_graph(
    lazy_graph: tuple[TargetGraph, GraphContract], outline: external.Outline, tmp_path: Path, precision: str
) -> None:
    found = []
    feed = inputs(lazy_graph[1])
    if precision == "int8":
        quantize(outline)
    for name, largest in (("in", 1 << 30), ("beside", 1000)):
        path = tmp_path / f"{name}.onnx"
        beside = write(copied(outline), path, tmp_path / f"{name}.onnx.data", largest)
        assert beside == (tmp_path / f"{name}.onnx.data").exists() == (name == "beside")
        onnx.checker.check_model(str(path))
        assert smoke("target", path, lazy_graph[1], lazy_graph[0], precision, beside) < 0.05
        graph = OrtGraph(
            "target", path.read_bytes(), lazy_graph[1], LoadOptions(threads=1), tmp_path if beside else None
        )
        found.append(graph.call(**feed)["logits"])
    assert np.array_equal(found[0], found[1])
    assert (tmp_path / "beside.onnx").stat().st_size < 0.3 * (tmp_path / "in.onnx").stat().st_size


def test_equal_content_is_stored_once(tmp_path: Path) -> None:
    """A matrix that a quantised graph uses twice."""
    nodes = [onnx.helper.make_node("MatMul", [a, "w"], [b]) for a, b in (("x", "h"), ("h", "y"))]
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, 64]) for n in "xy"]
    matrix = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(matrix, "w")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 24)], ir_version=10)
    outline = external.Outline(model)
    assert quantize(outline) == ["w"]
    assert write(outline, tmp_path / "g.onnx", tmp_path / "g.onnx.data", 1000)
    assert (tmp_path / "g.onnx.data").stat().st_size == 4096 + 64 * 4  # codes of a page, then the scales
    loaded = onnx.load(tmp_path / "g.onnx")
    arrays = {t.name: numpy_helper.to_array(t) for t in loaded.graph.initializer}
    assert np.array_equal(arrays["w_0_codes"], arrays["w_1_codes"])
    assert np.abs(arrays["w_0_codes"] * arrays["w_0_scales"] - matrix).max() < 0.02


def test_a_hollow_module_is_whole_again_afterwards(lazy_graph: tuple[TargetGraph, GraphContract]) -> None:
    module = lazy_graph[0]
    before = dict(module.named_parameters())
    with hollow(module) as large:
        inside = dict(module.named_parameters())
        assert not any(isinstance(p, Lazy) for p in inside.values())
        assert all(inside[name].untyped_storage().nbytes() == 4 for name in large)
    with streamed(module):
        assert any(isinstance(p, Lazy) for p in module.parameters())
    after = dict(module.named_parameters())
    assert all(after[name] is x for name, x in before.items())


def test_an_interrupted_run_leaves_no_weight_in_memory(lazy_graph: tuple[TargetGraph, GraphContract]) -> None:
    module = lazy_graph[0]
    matrix = module.head.last
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), streamed(module):
        matrix(torch.ones(1, 3))
    assert all(isinstance(p, Lazy) for p in module.parameters())


def test_what_torch_cannot_export_is_one_line() -> None:
    class Odd(nn.Module):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("first line\nsecond line")

    contract = GraphContract((TensorSpec("x", "float32", ("R", 4)),), ())
    with pytest.raises(CoolsdError, match="exporting Odd: expected a graph, found first line") as caught:
        to_onnx(Odd(), contract)
    assert "\n" not in str(caught.value)
