"""Row-wise int8: error bounds, rows that do not depend on each other, and products that do not overflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from coolsd_rt.backends.onnxruntime import saturation
from coolsd_rt.backends.onnxruntime.graph import OrtGraph
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.checkpoints.load import model_dims
from coolsd_rt.contract import target_contract
from coolsd_rt.errors import CoolsdError
from coolsd_rt.export.check import check_graph
from coolsd_rt.export.external import Outline, write
from coolsd_rt.export.graphs import TargetGraph
from coolsd_rt.export.products import constant_products
from coolsd_rt.export.rowwise import product_check, quantize_columns, quantize_rowwise
from coolsd_rt.export.torch_onnx import to_onnx
from coolsd_rt.export.widths import fold_queries
from tests.tiny import DRAFT, TARGET, networks

CONTRACT = target_contract(model_dims(TARGET, DRAFT))
CAPACITY, WIDTH = 64, 6


def products(matrices: dict[str, np.ndarray], uses: list[tuple[str, str, str]]) -> onnx.ModelProto:
    """A graph of MatMuls (input, matrix, output); inputs that no node makes are the graph's."""
    made = {y for _, _, y in uses}
    inputs = sorted({x for x, _, _ in uses} - made)
    outputs = sorted(made - {x for x, _, _ in uses})
    graph = helper.make_graph(
        [helper.make_node("MatMul", [x, w], [y]) for x, w, y in uses],
        "g",
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["R", "S", "K"]) for n in inputs],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["R", "S", "N"]) for n in outputs],
        [numpy_helper.from_array(m, n) for n, m in matrices.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, inputs)
    return found


def test_every_weight_is_within_half_a_step_of_its_column() -> None:
    weight = np.random.default_rng(0).standard_normal((600, 7)).astype(np.float32)
    weight[:, 3] = 0
    codes, scales = quantize_columns(weight)
    assert codes.dtype == np.int8
    assert scales.shape == (7,)
    assert (np.abs(codes * scales - weight) <= scales / 2 * (1 + 1e-5)).all()
    assert (codes[:, 3] == 0).all()
    assert (np.abs(codes).max(axis=0) == np.array([127, 127, 127, 0, 127, 127, 127])).all()


@pytest.mark.parametrize("unsigned", [False, True])
def test_products_are_what_their_codes_say(unsigned: bool) -> None:
    """Both types of weights have the same bits; a row of zeros stays zeros; a shared input is quantized once."""
    rng = np.random.default_rng(0)
    matrices = {n: rng.standard_normal((96, 40)).astype(np.float32) for n in ("a", "b", "left")}
    model = products(matrices, [("x", "a", "p"), ("x", "b", "q"), ("x", "left", "r")])
    assert sorted(quantize_rowwise(model, ["a", "b", "unknown"], unsigned=unsigned)) == ["a", "b"]
    onnx.checker.check_model(model)
    assert Counter(n.op_type for n in model.graph.node)["QuantizeLinear"] == 1
    x = rng.standard_normal((2, 3, 96)).astype(np.float32)
    x[1, 2], x[0, 0] = 0, x[0, 0] * 1e4
    p, q, r = run(model, x=x)
    largest = np.abs(x).max(axis=-1, keepdims=True)
    rows = np.rint(np.divide(x, largest, where=largest > 0, out=np.zeros_like(x)) * 127).astype(np.int64)
    for found, name in ((p, "a"), (q, "b")):
        codes, scales = quantize_columns(matrices[name])
        np.testing.assert_allclose(found, rows @ codes * (largest / 127) * scales, rtol=2e-6, atol=1e-6)
        assert (found[1, 2] == 0).all()
    np.testing.assert_allclose(r, x @ matrices["left"], rtol=1e-4, atol=1e-3)


def test_a_matrix_of_several_products_is_stored_once_and_others_stay_whole() -> None:
    rng = np.random.default_rng(0)
    matrices = {n: rng.standard_normal((32, 32)).astype(np.float32) for n in ("shared", "output")}
    model = products(matrices, [("x", "shared", "h"), ("h", "shared", "y"), ("y", "output", "z")])
    model.graph.node.append(helper.make_node("Add", ["z", "output"], ["added"]))
    model.graph.output[0].name = "added"
    assert list(constant_products(model.graph)) == ["shared"]  # what something else reads is no product's alone
    assert quantize_rowwise(model, ["shared", "output"]) == ["shared"]
    names = Counter(t.name for t in model.graph.initializer)
    assert names["shared_codes"] == names["output"] == 1
    assert "shared" not in names


def test_weights_beside_the_graph_are_the_same(tmp_path: Path) -> None:
    """As of a model that is larger than a message: quantized as they are written, one matrix at a time."""
    rng = np.random.default_rng(0)
    matrices = {n: rng.standard_normal((300, 40)).astype(np.float32) for n in ("a", "b")}
    x = rng.standard_normal((1, 3, 300)).astype(np.float32)
    found = []
    for largest in (0, None):
        outline = Outline(products(matrices, [("x", "a", "p"), ("x", "b", "q")]))
        quantize_rowwise(outline, ["a", "b"])
        path = tmp_path / f"{largest}.onnx"
        assert write(outline, path, tmp_path / f"{largest}.data", largest) == (largest == 0)
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found.append(session.run(None, {"x": x}))
    assert (tmp_path / "0.data").stat().st_size > 2 * 300 * 40
    for beside, within in zip(*found, strict=True):
        np.testing.assert_array_equal(beside, within)


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    model = to_onnx(TargetGraph(networks()[0]), CONTRACT)
    fold_queries(model)
    return model


def rowwise(exported: onnx.ModelProto) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(exported)
    names = list(constant_products(model.graph))
    assert quantize_rowwise(model, names) == names
    check_graph(model, CONTRACT)
    return model


def one_scale(model: onnx.ModelProto) -> onnx.ModelProto:
    """The planted bug: one scale over all rows, as of `quantize_dynamic` and DynamicQuantizeLinear."""
    for tensor in model.graph.initializer:
        if tensor.name == "coolsd_row_axis":
            tensor.CopyFrom(numpy_helper.from_array(np.arange(-3, 0), tensor.name))
    return model


def step(model: onnx.ModelProto) -> Callable[..., np.ndarray]:
    """Logits [R, S, V] of the graph for ids [R, S], with caches and prefixes of each row's own."""
    graph = OrtGraph("target", model.SerializeToString(), CONTRACT, LoadOptions(threads=1, spinning=False))
    rng, sizes = np.random.default_rng(0), {"R": 2, "T": CAPACITY, "S": WIDTH}
    given = {
        s.name: rng.standard_normal([sizes[n] if isinstance(n, str) else n for n in s.shape]).astype(s.dtype)
        for s in CONTRACT.inputs
    }

    def call(ids: np.ndarray, rows: tuple[int, ...] = (0, 1)) -> np.ndarray:
        picked = {name: value[list(rows)] for name, value in given.items()}
        return graph.call(**picked | {"ids": ids, "pos": np.full(len(rows), 9)})["logits"]

    return call


def moved(call: Callable[..., np.ndarray]) -> dict[str, float]:
    """How far a row's logits move with what must not matter to them."""
    ids = np.random.default_rng(1).integers(0, TARGET.vocab, (2, WIDTH))
    usual = call(ids)
    later, other = ids.copy(), ids.copy()
    later[:, 3:] = (ids[:, 3:] + 7) % TARGET.vocab
    other[1] = (ids[1] + 7) % TARGET.vocab
    return {
        "later positions": float(np.abs(call(later)[:, :3] - usual[:, :3]).max()),
        "the other row": float(np.abs(call(other)[0] - usual[0]).max()),
        "the row's place": float(np.abs(call(ids[::-1].copy(), (1, 0))[::-1] - usual).max()),
        "a narrower step": float(np.abs(call(ids[:, :1]) - usual[:, :1]).max()),
    }


def test_a_rows_logits_depend_on_nothing_behind_or_beside_it(exported: onnx.ModelProto) -> None:
    """Else speculation is not lossless: P of a position would depend on drafts behind it, and on the guidance row."""
    assert moved(step(rowwise(exported))) == dict.fromkeys(
        ("later positions", "the other row", "the row's place", "a narrower step"), 0.0
    )


def test_one_scale_over_all_rows_would_be_found(exported: onnx.ModelProto) -> None:
    found = moved(step(one_scale(rowwise(exported))))
    assert found["later positions"] > 1e-3
    assert found["the other row"] > 1e-3


def saturating(x: np.ndarray) -> float:
    """The error of a kernel that adds pairs of uint8 by int8 in 16 bits, as x86 does without VNNI."""
    codes = np.full((256, 4), 127, np.int64)
    codes[1::2, ::2] *= -1
    pairs = (x.astype(np.int64)[..., None] * codes).reshape(len(x), 128, 2, 4).sum(axis=2)
    return float(np.abs(np.clip(pairs, -(1 << 15), (1 << 15) - 1) - pairs).sum(axis=1).max())


def test_a_kernel_that_overflows_is_found() -> None:
    assert saturation.largest_error(saturating) > 1000
    assert saturation.largest_error(lambda x: 0.0) == 0


@pytest.mark.parametrize("unsigned", [False, True])
def test_the_check_runs_the_real_kernel(unsigned: bool) -> None:
    """Weights of uint8 are exact everywhere; of int8 exactly where the engine may use them."""
    graph = product_check(unsigned)
    onnx.checker.check_model(graph)
    worst = saturation.largest_error(saturation.error_of(graph.SerializeToString()))
    assert worst == 0 or (not unsigned and worst > 1000)


def test_wrong_products_refuse_the_engine_in_one_line() -> None:
    graph = product_check()
    matrix = next(t for t in graph.graph.initializer if t.name == "matrix")
    wrong = numpy_helper.to_array(matrix) * 0.5  # as if the sums had been cut
    matrix.CopyFrom(numpy_helper.from_array(wrong.astype(np.float32), "matrix"))
    with pytest.raises(CoolsdError, match="build the engine on this machine") as caught:
        saturation.check_products(graph.SerializeToString())
    assert "\n" not in str(caught.value)
