"""int8 by blocks: error bounds, what is left alone, and that ONNX Runtime fuses every matrix of a build."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from coolsd_rt.backends import LoadOptions
from coolsd_rt.backends.onnxruntime.graph import session_options
from coolsd_rt.export.quantize import block_size, quantize, quantize_matrix
from coolsd_rt.store import EngineFolder


@pytest.mark.parametrize(
    ("rows", "block"), [(128, 128), (512, 128), (384, 128), (192, 64), (96, 32), (48, 16), (40, 0)]
)
def test_the_largest_block_that_divides(rows: int, block: int) -> None:
    assert block_size(rows) == block


def test_every_weight_is_within_half_a_step() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 7)).astype(np.float32)
    weight[:32, 3] = 0
    codes, scales = quantize_matrix(weight, 32)
    assert codes.dtype == np.int8
    assert scales.shape == (2, 7)
    wide = np.repeat(scales, 32, axis=0)
    assert (np.abs(codes * wide - weight) <= wide / 2 * (1 + 1e-5)).all()
    assert (codes[:32, 3] == 0).all()
    assert np.isfinite(scales).all()
    assert np.abs(codes[32:, 3]).max() == 127  # a block's largest weight takes the whole range


def test_only_matrices_of_matmuls_are_touched() -> None:
    """A shared matrix stays right, a matrix that something else reads stays whole, and so does a kept one."""
    rng = np.random.default_rng(0)
    names = ("shared", "also_added", "kept", "odd")
    matrices = {n: rng.standard_normal((40 if n == "odd" else 32, 32)).astype(np.float32) for n in names}
    nodes = [
        helper.make_node("MatMul", ["x", "shared"], ["a"]),
        helper.make_node("MatMul", ["a", "shared"], ["b"]),
        helper.make_node("MatMul", ["b", "also_added"], ["c"]),
        helper.make_node("Add", ["c", "also_added"], ["d"]),
        helper.make_node("MatMul", ["d", "kept"], ["y"]),
        helper.make_node("MatMul", ["z", "odd"], ["w"]),
    ]
    shapes = {"x": [32, 32], "z": [2, 40]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("y", [32, 32]), ("w", [2, 32]))],
        [numpy_helper.from_array(m, n) for n, m in matrices.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)
    assert quantize(model, keep=["kept"]) == ["shared"]
    onnx.checker.check_model(model)
    assert Counter(n.op_type for n in model.graph.node)["DequantizeLinear"] == 2
    assert {t.name for t in model.graph.initializer} >= {"also_added", "kept", "odd"}
    options = ort.SessionOptions()  # the graph as it is written: fused, it would quantise the activations too
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x, z = rng.standard_normal((32, 32)).astype(np.float32), np.ones((2, 40), np.float32)
    codes, scales = quantize_matrix(matrices["shared"], 32)
    shared = codes * np.repeat(scales, 32, axis=0)
    added = matrices["also_added"]
    wanted = (x @ shared @ shared @ added + added) @ matrices["kept"]
    y, w = session.run(None, {"x": x, "z": z})
    assert np.allclose(y, wanted, rtol=1e-3, atol=1e-2)
    assert np.allclose(w, z @ matrices["odd"], atol=1e-4)


@pytest.mark.parametrize("name", ["target", "draft", "propose"])
def test_onnx_runtime_fuses_every_matrix(
    name: str, tiny_engine: EngineFolder, tiny_engine_int8: EngineFolder, tmp_path: Path
) -> None:
    """Unfused, int8 would be dequantised at every step, and slower than fp32."""
    path = tiny_engine_int8.verified().path(f"{name}.onnx")
    written = Counter(n.op_type for n in onnx.load(path).graph.node)
    assert written["DequantizeLinear"] > 0
    options = session_options(LoadOptions(threads=1))
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    run = Counter(n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert run["MatMulNBits"] == written["DequantizeLinear"]
    assert run["DequantizeLinear"] == 0

    before = onnx.load(tiny_engine.verified().path(f"{name}.onnx"))
    constants = {t.name for t in before.graph.initializer}
    matmuls = sum(n.op_type == "MatMul" and n.input[1] in constants for n in before.graph.node)
    assert run["MatMulNBits"] == matmuls
