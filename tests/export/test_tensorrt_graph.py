"""Graphs for TensorRT: pinned sizes, bytes last, and the graph that ONNX Runtime runs left as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from coolsd_rt.errors import CoolsdError  # noqa: E402
from coolsd_rt.export.tensorrt_graph import bytes_last, for_tensorrt, write  # noqa: E402


def pixels() -> onnx.ModelProto:
    """x [M, T, 3] -> bytes, transposed and unfolded after the cast."""
    nodes = [
        helper.make_node("Cast", ["x"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Unsqueeze", ["turned", "axis"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["M", "T", 3])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, ["M", 1, 3, "T"])],
        [numpy_helper.from_array(np.array([1]), "axis")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_bytes_are_made_last_and_are_the_same() -> None:
    before = pixels()
    model = for_tensorrt(before, {"T": 5})
    assert [n.op_type for n in model.graph.node] == ["Transpose", "Unsqueeze", "Cast"]
    x = np.random.default_rng(0).random((2, 5, 3), np.float32) * 255
    np.testing.assert_array_equal(run(model, x), run(before, x))


def test_only_the_named_dimensions_are_pinned_and_only_in_the_copy() -> None:
    before = pixels()
    model = for_tensorrt(before, {"T": 5})
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["M", 5, 3]
    assert [d.dim_param or d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == ["M", 1, 3, 5]
    assert before == pixels()


def test_a_cast_that_others_read_stays() -> None:
    model = pixels()
    model.graph.output.append(helper.make_tensor_value_info("bytes", TensorProto.UINT8, ["M", "T", 3]))
    assert bytes_last(model) == 0


def test_float64_is_refused() -> None:
    model = pixels()
    model.graph.node.append(helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE))
    with pytest.raises(CoolsdError, match="propose: types: expected those TensorRT has, found float64"):
        for_tensorrt(model, {}, name="propose")


@pytest.mark.parametrize("largest", [1, 1 << 30])
def test_a_written_graph_is_the_same_graph(largest: int, tmp_path: Path) -> None:
    model = pixels()
    model.graph.initializer.append(numpy_helper.from_array(np.arange(4096.0), "big"))
    before = model.SerializeToString(deterministic=True)
    path = write(model, tmp_path / "g.onnx", largest=largest)
    assert (tmp_path / "g.onnx.data").exists() == (largest == 1)
    found = onnx.load(str(path))
    np.testing.assert_array_equal(numpy_helper.to_array(found.graph.initializer[1]), np.arange(4096.0))
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[1]), np.arange(4096.0))
    assert len(before) <= len(model.SerializeToString(deterministic=True)) + 64
