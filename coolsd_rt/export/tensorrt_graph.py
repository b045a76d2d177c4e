"""Adapt a graph of the contract to TensorRT: a fixed cache capacity, and casts to bytes moved to the end.

Knows ONNX protobufs. Does not know TensorRT. The graph that ONNX Runtime runs stays unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from coolsd_rt.errors import CoolsdError
from coolsd_rt.export.external import size_of

# Protobuf limits a message to 2 GiB; 64 MiB of it are left for the nodes.
LARGEST = (2 << 30) - (64 << 20)
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")  # they move values without changing them
_DOUBLE = onnx.TensorProto.DOUBLE


def for_tensorrt(model: onnx.ModelProto, sizes: Mapping[str, int], *, name: str = "graph") -> onnx.ModelProto:
    """Return a copy with the dimensions in `sizes` fixed, and casts to bytes moved behind nodes that only move values.

    TensorRT's KV update layer needs a static capacity, and it supports bytes only as the type of an input or output.
    External weights that were not loaded stay in their file, and the copy refers to it too.

    Raises CoolsdError: float64 in the graph, which TensorRT does not support (the graph `propose` sums in float64).
    """
    if any(_double(node) for node in model.graph.node) or any(t.data_type == _DOUBLE for t in model.graph.initializer):
        fix = "draft in single steps"
        raise CoolsdError(f"{name}: types", expected="those TensorRT has", found="float64", fix=fix)
    copy = _copy(model)
    pin(copy, sizes)
    bytes_last(copy)
    return copy


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model tensor by tensor: protobuf copies a message through its bytes, which are limited to 2 GiB."""
    copy = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _take(copy, field, value)
    for field, value in model.graph.ListFields():
        _take(copy.graph, field, value)
    return copy


def _take(into: Any, field: Any, value: Any) -> None:
    here = getattr(into, field.name)
    if hasattr(here, "extend"):
        here.extend(value)
    elif hasattr(here, "CopyFrom"):
        here.CopyFrom(value)
    else:
        setattr(into, field.name, value)


def _double(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == _DOUBLE for a in node.attribute)


def pin(model: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    """Set named dimensions of inputs and outputs to their sizes, in place."""
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param") and dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]  # a protobuf oneof: this clears the name


def bytes_last(model: onnx.ModelProto) -> int:
    """Move casts to uint8 behind Transpose and similar nodes, up to an output, in place. Return the number of moves."""
    graph = model.graph
    outputs = {o.name for o in graph.output}
    moved = 0
    while (pair := _swappable(graph, outputs)) is not None:
        cast, move = pair
        between = f"{cast.output[0]}_moved"
        move.input[0], cast.input[0] = cast.input[0], between
        cast.output[0], move.output[0] = move.output[0], between
        nodes = list(graph.node)
        i, j = next(i for i, n in enumerate(nodes) if n is cast), next(i for i, n in enumerate(nodes) if n is move)
        nodes[i], nodes[j] = nodes[j], nodes[i]
        ordered = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del graph.node[:]
        graph.node.extend(ordered)
        moved += 1
    return moved


def _swappable(graph: onnx.GraphProto, outputs: set[str]) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """Return a cast to uint8 and its only reader, if that node only moves values; None if there is no such pair."""
    for cast in graph.node:
        if cast.op_type != "Cast" or not any(a.name == "to" and a.i == onnx.TensorProto.UINT8 for a in cast.attribute):
            continue
        readers = [n for n in graph.node if cast.output[0] in n.input]
        if len(readers) == 1 and cast.output[0] not in outputs and readers[0].op_type in _MOVES:
            return cast, readers[0]
    return None


def write(model: onnx.ModelProto, path: Path, largest: int = LARGEST) -> Path:
    """Write a graph for TensorRT's parser to read by path; weights of `largest` bytes or more go into `<path>.data`."""
    if sum(size_of(t) for t in model.graph.initializer) < largest:
        path.write_bytes(model.SerializeToString(deterministic=True))
    else:
        onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
        onnx.load_external_data_for_model(model, str(path.parent))  # saving removed them from the model
    return path
