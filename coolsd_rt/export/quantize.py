"""Weight-only int8: each MatMul's matrix becomes a block-wise DequantizeLinear of int8 codes.

Standard operators only, in the shape that ONNX Runtime fuses into MatMulNBits and TensorRT builds as it is. Knows
graphs and matrices. Does not know which model a graph is of. Norms, embeddings, biases and caches stay in float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from coolsd_rt.export.external import Make, Outline, Weight, fill, placeholder, read
from coolsd_rt.export.products import constant_products

# Rows of a matrix that share one scale; the largest that divides is taken. Fewer than 16 cannot be fused.
BLOCKS = (128, 64, 32, 16)
_LIMIT = 127.0


def block_size(rows: int) -> int:
    """Rows a scale covers in a matrix of `rows` rows; 0 if none fits."""
    return next((b for b in BLOCKS if rows % b == 0), 0)


def quantize_matrix(weight: NDArray[Any], block: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """[K, N] -> int8 codes [K, N] and scales [K / block, N], symmetric: weight is about code * scale."""
    k, n = weight.shape
    codes, scales = np.empty((k // block, block, n), np.int8), np.empty((k // block, n), np.float32)
    for i, rows in enumerate(weight.reshape(k // block, block, n)):  # a block at a time: its temporaries are small
        part = rows.astype(np.float32)
        scale = np.abs(part).max(axis=0) / np.float32(_LIMIT)
        scales[i] = np.where(scale > 0, scale, np.float32(1.0))
        codes[i] = np.clip(np.rint(part / scales[i]), -_LIMIT, _LIMIT)
    return codes.reshape(k, n), scales


def quantize(model: onnx.ModelProto | Outline, keep: Collection[str] = ()) -> list[str]:
    """Quantise, in place, the constant matrix of every MatMul but those initializers named in `keep`.

    Of an outline nothing is read here: a matrix is quantised when it is written. Returns the names of the matrices. A
    matrix used n times is stored n times: ONNX Runtime fuses only what a MatMul has for itself.
    """
    outline = model if isinstance(model, Outline) else Outline(model)
    graph = outline.model.graph
    constants = {t.name: t for t in graph.initializer}
    done: dict[str, list[onnx.TensorProto]] = {}
    before: dict[str, onnx.NodeProto] = {}  # DequantizeLinear by its output
    for name, nodes in constant_products(graph).items():
        shape = tuple(constants[name].dims)
        block = block_size(shape[0])
        if name in keep or not block:
            continue
        done[name] = []
        make = _maker(outline, constants[name], block)
        for use, node in enumerate(nodes):
            own = [f"{name}_{use}_codes", f"{name}_{use}_scales"]
            done[name].append(placeholder(own[0], onnx.TensorProto.INT8, shape))
            # A product wants both sides of one type.
            done[name].append(placeholder(own[1], constants[name].data_type, (shape[0] // block, shape[1])))
            outline.weights |= {own[part]: Weight(make, part) for part in (0, 1)}
            out = f"{name}_{use}"
            before[out] = helper.make_node("DequantizeLinear", own, [out], out, axis=0, block_size=block)
            node.input[1] = out
    _exchange(graph, done)
    _insert(graph, before)
    for name in done:
        outline.weights.pop(name, None)
    if isinstance(model, onnx.ModelProto):
        fill(outline)
    return list(done)


def _maker(outline: Outline, tensor: onnx.TensorProto, block: int) -> Make:
    """How a matrix becomes its codes and scales; the graph need not have it any more when it does."""
    source = onnx.TensorProto()
    source.CopyFrom(tensor)
    held = Outline(onnx.ModelProto(), {k: v for k, v in outline.weights.items() if k == tensor.name})

    def make() -> tuple[NDArray[Any], ...]:
        weight = read(held, source)
        codes, scales = quantize_matrix(weight, block)
        return codes, scales.astype(weight.dtype)

    return make


def _exchange(graph: onnx.GraphProto, done: Mapping[str, list[onnx.TensorProto]]) -> None:
    """Codes and scales behind the initializers that stay."""
    kept = [t for t in graph.initializer if t.name not in done]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *(t for made in done.values() for t in made)])


def _insert(graph: onnx.GraphProto, before: dict[str, onnx.NodeProto]) -> None:
    """Put each DequantizeLinear right before the MatMul that reads it: nodes stand in the order they run."""
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "MatMul" and node.input[1] in before:
            graph.node.append(before[node.input[1]])
        graph.node.append(node)
