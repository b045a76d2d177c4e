"""What a build makes follows the contract, and a graph that does not is refused with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import onnx
import pytest
from onnx import helper

from coolsd_rt.backends import Description
from coolsd_rt.errors import CoolsdError
from coolsd_rt.export.check import check_graph
from coolsd_rt.store import EngineFolder
from tests.tiny import LENGTH

GRAPHS = ("condition", "target", "draft", "propose", "image")


def graph(engine: EngineFolder, name: str) -> onnx.ModelProto:
    return onnx.load(engine.verified().path(f"{name}.onnx"))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_build_follows_the_contract(tiny_engine: EngineFolder, name: str) -> None:
    description = Description.from_dict(tiny_engine.manifest.contract)
    model = graph(tiny_engine, name)
    check_graph(model, description.graphs[name].contract)
    onnx.checker.check_model(model, full_check=True)


def test_operators_of_the_target(tiny_engine: EngineFolder) -> None:
    """One of each a layer: nothing was decomposed on the way."""
    layers = 2
    ops = Counter(n.op_type for n in graph(tiny_engine, "target").graph.node)
    assert ops["Attention"] == ops["RotaryEmbedding"] == layers
    assert ops["TensorScatter"] == 2 * layers
    assert ops["RMSNormalization"] == 2 * layers + 1
    assert ops["MatMul"] == 4 * layers + 1
    assert not [op for op in ops if op.startswith("Scatter")]
    propose = Counter(n.op_type for n in graph(tiny_engine, "propose").graph.node)
    assert propose["TensorScatter"] == 2
    assert propose["TopK"] == LENGTH


def test_nothing_of_this_machine_is_in_a_graph(tiny_engine: EngineFolder) -> None:
    for name in GRAPHS:
        data = tiny_engine.verified().read(f"{name}.onnx")
        for trace in (b"/coolsd_rt/", b".py", b"stack_trace", b"File "):
            assert trace not in data, (name, trace)


def _rename(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "tokens"


def _retype(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def _fix_a_dimension(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4


def _drop(model: onnx.ModelProto) -> None:
    del model.graph.output[-1]


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 20


def _foreign(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("FusedMatMul", ["ids", "ids"], ["z"], domain="com.microsoft"))


def _another_scatter(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("ScatterND", ["k_0", "ids", "pos"], ["z"]))


def _read_the_old_cache(model: onnx.ModelProto) -> None:
    """A second reader of a cache's input keeps it alive, and the write cannot be in place."""
    model.graph.node.append(helper.make_node("Neg", ["k_0"], ["z"]))


def _write_twice(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if "k_0_out" in node.output:
            node.output[0] = "k_between"
    model.graph.node.append(helper.make_node("Identity", ["k_between"], ["k_0_out"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_rename, ["inputs: ids", "expected ids int64 [R, S]", "found tokens int64 [R, S]"]),
        (_retype, ["outputs: logits", "found logits another type"]),
        (_fix_a_dimension, ["inputs: ids", "found ids int64 [4, S]"]),
        (_drop, ["outputs", "expected 6 tensors", "found 5"]),
        (_opset, ["opset", "24", "20"]),
        (_foreign, ["FusedMatMul"]),
        (_another_scatter, ["expected TensorScatter", "found ScatterND"]),
        (_read_the_old_cache, ["k_0", "Neg to z"]),
        (_write_twice, ["k_0", "TensorScatter to k_between"]),
    ],
)
def test_other_graphs_are_refused(
    tiny_engine: EngineFolder, change: Callable[[onnx.ModelProto], None], words: list[str]
) -> None:
    model = graph(tiny_engine, "target")
    change(model)
    with pytest.raises(CoolsdError) as caught:
        check_graph(
            model, Description.from_dict(tiny_engine.manifest.contract).graphs["target"].contract, name="target"
        )
    for word in ["target", *words]:
        assert word in str(caught.value)
