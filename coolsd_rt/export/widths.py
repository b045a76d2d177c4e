"""Make the results of attention independent of the number of positions in a step.

ONNX Runtime's CPU provider multiplies one query by a matrix-vector kernel and several queries by a matrix kernel, and
the two round differently (2e-7). int8 activations amplify that to 0.2 in a logit, so a token's probability would depend
on the number of drafts verified beside it, and on other images of the batch. This pass duplicates the query of a step
of one position and drops the second result: then all widths use one kernel, and equal inputs give equal bits.

Knows graphs of the contract. Serves ONNX Runtime on a CPU alone; other backends have other kernels.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

_QUERY, _MASK = 0, 3  # indices of inputs of Attention, opset 24
_PREFIX = "coolsd_width"
_CONSTANTS = {"zero": ([], 0), "step": ([], 1), "start": ([1], 0), "one": ([1], 1), "two": ([1], 2)}


def pad_single_queries(model: onnx.ModelProto) -> int:
    """Rewrite every masked Attention node in place; return the number of nodes.

    model: a step of the contract with the input `ids` int64 [R, S]; queries are [R, H, S, D], masks [R, 1, S, T]. For S
    > 1 the graph computes the same results as before.
    """
    graph = model.graph
    nodes = [n for n in graph.node if n.op_type == "Attention" and len(n.input) > _MASK and n.input[_MASK]]
    if not nodes:
        return 0
    for name, (shape, value) in _CONSTANTS.items():
        graph.initializer.append(numpy_helper.from_array(np.full(shape, value), f"{_PREFIX}_{name}"))
    before = {id(node): _padded(node) for node in nodes}
    masks: set[str] = set()
    ordered = _indices()
    for node in graph.node:
        for made in before.get(id(node), []):
            if made.output[0] not in masks:  # layers share one mask
                ordered.append(made)
                masks.add(made.output[0])
        ordered.append(node)
        if id(node) in before:
            ordered.append(_cut(node))
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in ordered]
    del graph.node[:]
    graph.node.extend(copies)
    return len(nodes)


def _indices() -> list[onnx.NodeProto]:
    """Return nodes that compute `index` = 0, 1, ..., S - 1 (0, 0 for S = 1) and `size` = [S]."""
    p = _PREFIX
    return [
        helper.make_node("Shape", ["ids"], [f"{p}_size"], start=1, end=2),
        helper.make_node("Max", [f"{p}_size", f"{p}_two"], [f"{p}_least"]),
        helper.make_node("Squeeze", [f"{p}_least"], [f"{p}_count"]),
        helper.make_node("Range", [f"{p}_zero", f"{p}_count", f"{p}_step"], [f"{p}_range"]),
        helper.make_node("Sub", [f"{p}_size", f"{p}_one"], [f"{p}_last"]),
        helper.make_node("Min", [f"{p}_range", f"{p}_last"], [f"{p}_index"]),
    ]


def _padded(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return nodes that gather the query and the mask of a node at `index`, and let the node read the results."""
    made = []
    for at in (_QUERY, _MASK):
        taken = f"{_PREFIX}_{node.input[at]}"
        made.append(helper.make_node("Gather", [node.input[at], f"{_PREFIX}_index"], [taken], axis=2))
        node.input[at] = taken
    return made


def _cut(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a node that keeps the first S results under the old name of the node's output.

    The output of the node itself gets a new name.
    """
    whole, name = f"{_PREFIX}_{node.output[0]}", node.output[0]
    node.output[0] = whole
    two = f"{_PREFIX}_two"  # the axis of positions
    return helper.make_node("Slice", [whole, f"{_PREFIX}_start", f"{_PREFIX}_size", two], [name])
