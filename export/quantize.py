"""Weight-only int8: each MatMul's matrix becomes a block-wise DequantizeLinear of int8 codes.

Standard operators only, in the shape that ONNX Runtime fuses into MatMulNBits and TensorRT builds as it is. Knows
graphs and matrices. Does not know which model a graph is of. Norms, embeddings, biases and caches stay in float32.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

# Rows of a matrix that share one scale; the largest that divides is taken. Fewer than 16 cannot be fused.
BLOCKS = (128, 64, 32, 16)
_LIMIT = 127.0


def block_size(rows: int) -> int:
    """Rows a scale covers in a matrix of `rows` rows; 0 if none fits."""
    return next((b for b in BLOCKS if rows % b == 0), 0)


def quantize_matrix(weight: NDArray[np.float32], block: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """[K, N] -> int8 codes [K, N] and scales [K / block, N], symmetric: weight is about code * scale."""
    k, n = weight.shape
    parts = weight.reshape(k // block, block, n)
    scales = np.abs(parts).max(axis=1) / _LIMIT
    scales = np.where(scales > 0, scales, 1.0).astype(np.float32)
    codes = np.clip(np.rint(parts / scales[:, None]), -_LIMIT, _LIMIT).astype(np.int8)
    return codes.reshape(k, n), scales


def quantize(model: onnx.ModelProto, keep: Collection[str] = ()) -> list[str]:
    """Quantise, in place, the constant matrix of every MatMul but those initializers named in `keep`.

    Returns the names of the matrices that were quantised. A matrix used n times is stored n times: ONNX Runtime fuses
    only what a MatMul has for itself.
    """
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name in constants:
                users.setdefault(name, []).append(node)
                if node.op_type != "MatMul" or at != 1:
                    keep = {*keep, name}
    done: list[str] = []
    before: dict[str, onnx.NodeProto] = {}  # DequantizeLinear by its output
    for name, nodes in users.items():
        weight = numpy_helper.to_array(constants[name])
        block = block_size(weight.shape[0]) if weight.ndim == 2 else 0
        if name in keep or not block:
            continue
        codes, scales = quantize_matrix(weight.astype(np.float32), block)
        scales = scales.astype(weight.dtype)  # a product wants both sides of one type
        graph.initializer.remove(constants[name])
        for use, node in enumerate(nodes):
            own = [f"{name}_{use}_codes", f"{name}_{use}_scales"]
            graph.initializer.append(numpy_helper.from_array(codes, own[0]))
            graph.initializer.append(numpy_helper.from_array(scales, own[1]))
            out = f"{name}_{use}"
            before[out] = helper.make_node("DequantizeLinear", own, [out], out, axis=0, block_size=block)
            node.input[1] = out
        done.append(name)
    _insert(graph, before)
    return done


def _insert(graph: onnx.GraphProto, before: dict[str, onnx.NodeProto]) -> None:
    """Put each DequantizeLinear right before the MatMul that reads it: nodes stand in the order they run."""
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "MatMul" and node.input[1] in before:
            graph.node.append(before[node.input[1]])
        graph.node.append(node)
