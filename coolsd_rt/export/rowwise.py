"""Row-wise int8: activations quantized with one scale a row, weights with one scale a column, int32 sums.

    x [..., K] -> m = max |x| of the row -> u = QuantizeLinear(x / m), uint8 with zero point 128
               -> MatMulInteger(u, codes int8 [K, N]) -> float32 -> times m -> times the column's scale

Standard operators only. A row's result depends on that row alone: one scale over all rows (DynamicQuantizeLinear) would
let a position's logits depend on drafts behind it and on the other row of guidance. Activations are uint8, since ONNX
Runtime has no fast kernel for int8 by int8. On x86 processors without VNNI, its kernels for uint8 by int8 add two
products in 16 bits, which overflow: there weights are uint8 with zero point 128 too, the same numbers by a slower,
exact kernel.

Knows graphs and matrices. Does not know which matrices gain by this form (the build measures that), nor the form by
blocks (`quantize`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from coolsd_rt.export.check import OPSET
from coolsd_rt.export.external import Make, Outline, Weight, fill, placeholder, read
from coolsd_rt.export.products import constant_products

LIMIT = 127.0
"""Largest magnitude of a code, of activations (around the zero point) and of weights."""
ZERO_POINT = 128
_PREFIX = "coolsd_row"
_ROWS_AT_ONCE = 256  # of a matrix while it is quantized: temporaries stay small


def column_scales(weight: NDArray[Any]) -> NDArray[np.float32]:
    """[K, N] -> float32 [N]: the largest magnitude of each column over 127, 1 for a column of zeros."""
    scale = np.abs(weight).max(axis=0).astype(np.float32) / np.float32(LIMIT)
    return np.where(scale > 0, scale, np.float32(1.0)).astype(np.float32)


def quantize_columns(weight: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """[K, N] -> int8 codes [K, N] and scales float32 [N], symmetric: weight is about code * scale."""
    scales, codes = column_scales(weight), np.empty(weight.shape, np.int8)
    for at in range(0, len(weight), _ROWS_AT_ONCE):
        rows = slice(at, at + _ROWS_AT_ONCE)
        codes[rows] = np.clip(np.rint(weight[rows].astype(np.float32) / scales), -LIMIT, LIMIT)
    return codes, scales


def quantize_rowwise(model: onnx.ModelProto | Outline, names: Collection[str], *, unsigned: bool = False) -> list[str]:
    """Rewrite, in place, the MatMuls of the constant matrices `names`; others and unknown names stay as they are.

    unsigned: store weights as uint8 with zero point 128, for processors whose kernels of uint8 by int8 overflow.

    Of an outline nothing is read here: a matrix is quantized when it is written. Returns the names of the matrices that
    were rewritten. A matrix of several products is stored once, and an input of several products is quantized once.
    """
    outline = model if isinstance(model, Outline) else Outline(model)
    graph = outline.model.graph
    found = {n: nodes for n, nodes in constant_products(graph).items() if n in names}
    if not found:
        return []
    constants = {t.name: t for t in graph.initializer}
    made: list[onnx.TensorProto] = []
    for name in found:
        shape = tuple(constants[name].dims)
        make = _maker(outline, constants[name], unsigned)
        own = [_codes(name), _scales(name)]
        made.append(placeholder(own[0], onnx.TensorProto.UINT8 if unsigned else onnx.TensorProto.INT8, shape))
        made.append(placeholder(own[1], onnx.TensorProto.FLOAT, shape[1:]))
        outline.weights |= {own[part]: Weight(make, part) for part in (0, 1)}
    _rewrite(graph, {id(node) for nodes in found.values() for node in nodes}, unsigned)
    kept = [t for t in graph.initializer if t.name not in found]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *_constants(), *made])
    for name in found:
        outline.weights.pop(name, None)
    if isinstance(model, onnx.ModelProto):
        fill(outline)
    return list(found)


def _codes(name: str) -> str:
    return f"{name}_codes"


def _scales(name: str) -> str:
    return f"{name}_scales"


def _unsigned(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    return codes.view(np.uint8) ^ np.uint8(ZERO_POINT)  # + 128


def _maker(outline: Outline, tensor: onnx.TensorProto, unsigned: bool) -> Make:
    """How a matrix becomes its codes and scales; the graph need not have it any more when it does."""
    source = onnx.TensorProto()
    source.CopyFrom(tensor)
    held = Outline(onnx.ModelProto(), {k: v for k, v in outline.weights.items() if k == tensor.name})

    def make() -> tuple[NDArray[Any], ...]:
        codes, scales = quantize_columns(read(held, source))
        # Activations are codes of 1 / 127 of their row's largest.
        return _unsigned(codes) if unsigned else codes, scales / np.float32(LIMIT)

    return make


def _constants() -> list[onnx.TensorProto]:
    values = {
        "axis": np.array([-1]),
        "step": np.float32(1 / LIMIT),
        "zero": np.uint8(ZERO_POINT),
    }
    return [numpy_helper.from_array(np.asarray(value), f"{_PREFIX}_{name}") for name, value in values.items()]


@dataclass
class _Rows:
    """Inputs that are quantized already: name to its codes and its rows' largest magnitudes."""

    known: dict[str, tuple[str, str]] = field(default_factory=dict)

    def of(self, x: str) -> tuple[list[onnx.NodeProto], str, str]:
        """Nodes to put before the product, and the names of codes uint8 [..., K] and magnitudes [..., 1]."""
        if x in self.known:
            return [], *self.known[x]
        p, c = f"{_PREFIX}_{x}", _PREFIX
        # A row of zeros has codes of no meaning (0 / 0), and products of those times 0 are 0 again.
        self.known[x] = f"{p}_codes", f"{p}_largest"
        nodes = [
            helper.make_node("Abs", [x], [f"{p}_abs"]),
            helper.make_node("ReduceMax", [f"{p}_abs", f"{c}_axis"], [f"{p}_largest"], keepdims=1),
            helper.make_node("Div", [x, f"{p}_largest"], [f"{p}_unit"]),
            helper.make_node("QuantizeLinear", [f"{p}_unit", f"{c}_step", f"{c}_zero"], [f"{p}_codes"]),
        ]
        return nodes, *self.known[x]


def _rewrite(graph: onnx.GraphProto, products: Collection[int], unsigned: bool) -> None:
    """Nodes of the row-wise form in the place of each product (by `id`)."""
    nodes, rows = list(graph.node), _Rows()
    del graph.node[:]
    for node in nodes:
        if id(node) not in products:
            graph.node.append(node)
            continue
        (x, matrix), y = node.input, node.output[0]
        before, codes, largest = rows.of(x)
        p, zero = f"{_PREFIX}_{y}", f"{_PREFIX}_zero"
        factors = [codes, _codes(matrix), zero, *([zero] if unsigned else [])]
        graph.node.extend(
            [
                *before,
                helper.make_node("MatMulInteger", factors, [f"{p}_sum"]),
                helper.make_node("Cast", [f"{p}_sum"], [f"{p}_float"], to=onnx.TensorProto.FLOAT),
                helper.make_node("Mul", [f"{p}_float", largest], [f"{p}_scaled"]),
                helper.make_node("Mul", [f"{p}_scaled", _scales(matrix)], [y]),
            ]
        )


def product_check(unsigned: bool = False) -> onnx.ModelProto:
    """A graph that multiplies the largest codes in both ways: x uint8 [R, 256] -> error float32 [].

    error: the largest difference between MatMulInteger and float32, whose sums are exact here (below 2^24). A kernel
    that adds two products in 16 bits is wrong by thousands. unsigned: as in `quantize_rowwise`.
    """
    size, columns = 256, 64
    codes = np.full((size, columns), LIMIT, np.int8)
    codes[:, 1::2] *= -1
    codes[1::2, ::3] *= -1
    factors = ["x", "codes", "zero", *(["zero"] if unsigned else [])]
    nodes = [
        helper.make_node("MatMulInteger", factors, ["sums"]),
        helper.make_node("Cast", ["sums"], ["found"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Cast", ["x"], ["floats"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Sub", ["floats", "middle"], ["centred"]),
        helper.make_node("MatMul", ["centred", "matrix"], ["exact"]),
        helper.make_node("Sub", ["found", "exact"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["absolute"]),
        helper.make_node("ReduceMax", ["absolute"], ["error"], keepdims=0),
    ]
    constants = {
        "codes": _unsigned(codes) if unsigned else codes,
        "matrix": codes.astype(np.float32),
        "zero": np.asarray(np.uint8(ZERO_POINT)),
        "middle": np.asarray(np.float32(ZERO_POINT)),
    }
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["R", size])],
        [helper.make_tensor_value_info("error", onnx.TensorProto.FLOAT, [])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
