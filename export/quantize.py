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

    A matrix used several times is quantised once. Returns the names of the matrices that were quantised.
    """
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    used = {n.input[1] for n in graph.node if n.op_type == "MatMul" and n.input[1] in constants}
    others = {i for n in graph.node for at, i in enumerate(n.input) if not (n.op_type == "MatMul" and at == 1)}
    done: list[str] = []
    for name in sorted(used - others - set(keep)):
        weight = numpy_helper.to_array(constants[name])
        block = block_size(weight.shape[0]) if weight.ndim == 2 else 0
        if not block:
            continue
        codes, scales = quantize_matrix(weight.astype(np.float32), block)
        graph.initializer.remove(constants[name])
        graph.initializer.append(numpy_helper.from_array(codes, f"{name}_codes"))
        for use in range(_dequantize(graph, name, block)):
            graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales_{use}"))
        done.append(name)
    return done


def _dequantize(graph: onnx.GraphProto, name: str, block: int) -> int:
    """One DequantizeLinear per use; returns how many.

    Each use has scales of its own (1/32 of the matrix): ONNX Runtime would merge equal nodes first, and then not fuse
    what several MatMuls share.
    """
    nodes = list(graph.node)
    del graph.node[:]
    uses = 0
    for node in nodes:
        if node.op_type == "MatMul" and node.input[1] == name:
            out = f"{name}_float_{uses}"
            inputs = [f"{name}_codes", f"{name}_scales_{uses}"]
            graph.node.append(helper.make_node("DequantizeLinear", inputs, [out], out, axis=0, block_size=block))
            node.input[1] = out
            uses += 1
        graph.node.append(node)
    return uses
