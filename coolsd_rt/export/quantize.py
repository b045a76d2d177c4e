"""Weight-only int8: replace the matrix of each MatMul by a block-wise DequantizeLinear of int8 codes.

Uses standard operators only, in the form that ONNX Runtime fuses into MatMulNBits and TensorRT builds without changes.
Knows graphs and matrices. Does not know which model a graph belongs to. Norms, embeddings, biases and caches stay in
float32.
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

# Rows of a matrix that share one scale; the largest divisor is used. Blocks of fewer than 16 rows cannot be fused.
BLOCKS = (128, 64, 32, 16)
_LIMIT = 127.0


def block_size(rows: int) -> int:
    """Return the number of rows that share a scale in a matrix of `rows` rows; 0 if none of `BLOCKS` divides it."""
    return next((b for b in BLOCKS if rows % b == 0), 0)


def quantize_matrix(weight: NDArray[Any], block: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise a matrix [K, N] to int8 codes [K, N] and scales [K / block, N], symmetric: weight ~ code * scale."""
    k, n = weight.shape
    codes, scales = np.empty((k // block, block, n), np.int8), np.empty((k // block, n), np.float32)
    for i, rows in enumerate(weight.reshape(k // block, block, n)):  # one block at a time keeps temporaries small
        part = rows.astype(np.float32)
        scale = np.abs(part).max(axis=0) / np.float32(_LIMIT)
        scales[i] = np.where(scale > 0, scale, np.float32(1.0))
        codes[i] = np.clip(np.rint(part / scales[i]), -_LIMIT, _LIMIT)
    return codes.reshape(k, n), scales


def quantize(model: onnx.ModelProto | Outline, keep: Collection[str] = ()) -> list[str]:
    """Quantise in place the constant matrix of every MatMul, except initializers named in `keep`.

    An outline's weights are not read here: a matrix is quantised when it is written. Returns the names of the matrices.
    A matrix that n nodes use is stored n times: ONNX Runtime fuses a MatMul only with a matrix that no other node uses.
    """
    outline = model if isinstance(model, Outline) else Outline(model)
    graph = outline.model.graph
    constants = {t.name: t for t in graph.initializer}
    done: dict[str, list[onnx.TensorProto]] = {}
    before: dict[str, onnx.NodeProto] = {}  # DequantizeLinear nodes by output name
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
            # Both sides of a product must have the same type.
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
    """Return the function that computes the codes and scales of a matrix.

    It works even after the graph has dropped the matrix.
    """
    source = onnx.TensorProto()
    source.CopyFrom(tensor)
    held = Outline(onnx.ModelProto(), {k: v for k, v in outline.weights.items() if k == tensor.name})

    def make() -> tuple[NDArray[Any], ...]:
        weight = read(held, source)
        codes, scales = quantize_matrix(weight, block)
        return codes, scales.astype(weight.dtype)

    return make


def _exchange(graph: onnx.GraphProto, done: Mapping[str, list[onnx.TensorProto]]) -> None:
    """Replace the quantised initializers by their codes and scales, placed after those that stay."""
    kept = [t for t in graph.initializer if t.name not in done]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *(t for made in done.values() for t in made)])


def _insert(graph: onnx.GraphProto, before: dict[str, onnx.NodeProto]) -> None:
    """Put each DequantizeLinear right before the MatMul that reads it: nodes are listed in execution order."""
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "MatMul" and node.input[1] in before:
            graph.node.append(before[node.input[1]])
        graph.node.append(node)
