"""Give each query of attention its own product with the keys, however many positions a step has.

ONNX Runtime's CPU provider multiplies one query by a matrix-vector kernel, which reads the cache as it lies, and
several queries by a matrix kernel, which first copies the cache into another order: with the few queries of a step that
verifies drafts, the copy costs more than the products. The two also round differently (2e-7). int8 activations amplify
that to 0.2 in a logit, so a token's probability would depend on the number of drafts verified beside it, and on other
images of the batch.

This pass turns the S queries of each head into S heads of one position, which share the head's keys as grouped heads
do. All widths then use the matrix-vector kernel, and equal inputs give equal bits.

Knows graphs of the contract. Serves ONNX Runtime on a CPU alone; other backends have other kernels.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

_QUERY, _MASK = 0, 3  # indices of inputs of Attention, opset 24
_PREFIX = "coolsd_width"
_HIDDEN = np.finfo(np.float32).min  # what Attention itself adds where a bool mask is false
_CONSTANTS = {
    "folded": np.array([0, -1, 1, 0]),  # [R, H, S, n] to [R, H * S, 1, n]; 0 keeps a size
    "one": np.array([1]),
    "seen": np.float32(0),
    "hidden": np.float32(_HIDDEN),
}


def fold_queries(model: onnx.ModelProto) -> int:
    """Rewrite every masked Attention node in place; return the number of nodes.

    model: a step of the contract; queries are float32 [R, H, S, D], with one H in all layers, and masks bool [R, 1, S,
    T]. A mask becomes float32 [R, H * S, 1, T] once for all layers: from a bool mask each node would make it again.
    """
    graph = model.graph
    nodes = [n for n in graph.node if n.op_type == "Attention" and len(n.input) > _MASK and n.input[_MASK]]
    if not nodes:
        return 0
    for name, value in _CONSTANTS.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{_PREFIX}_{name}"))
    before = {id(nodes[0]): _sizes(nodes[0].input[_QUERY])}
    masks: set[str] = set()
    for node in nodes:
        made = before.setdefault(id(node), [])
        if node.input[_MASK] not in masks:  # layers share one mask
            masks.add(node.input[_MASK])
            made += _mask(node.input[_MASK])
        made.append(_folded(node))
    ordered: list[onnx.NodeProto] = []
    for node in graph.node:
        ordered += [*before.get(id(node), []), node]
        if id(node) in before:
            ordered.append(_unfolded(node))
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in ordered]
    del graph.node[:]
    graph.node.extend(copies)
    return len(nodes)


def _sizes(query: str) -> list[onnx.NodeProto]:
    """Return nodes that compute `shape` = [R, H, S, D] and `rows` = [R, H, S, 1] of a query."""
    p = _PREFIX
    return [
        helper.make_node("Shape", [query], [f"{p}_shape"]),
        helper.make_node("Shape", [query], [f"{p}_queries"], start=0, end=3),
        helper.make_node("Concat", [f"{p}_queries", f"{p}_one"], [f"{p}_rows"], axis=0),
    ]


def _mask(mask: str) -> list[onnx.NodeProto]:
    """Return nodes that compute what Attention adds to the scores of folded queries."""
    p, made = _PREFIX, f"{_PREFIX}_{mask}"
    return [
        helper.make_node("Where", [mask, f"{p}_seen", f"{p}_hidden"], [f"{made}_added"]),
        helper.make_node("Expand", [f"{made}_added", f"{p}_rows"], [f"{made}_heads"]),
        helper.make_node("Reshape", [f"{made}_heads", f"{p}_folded"], [made]),
    ]


def _folded(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a node that folds a node's query, and let the node read it and the folded mask."""
    query, made = node.input[_QUERY], f"{_PREFIX}_{node.input[_QUERY]}"
    node.input[_QUERY], node.input[_MASK] = made, f"{_PREFIX}_{node.input[_MASK]}"
    return helper.make_node("Reshape", [query, f"{_PREFIX}_folded"], [made])


def _unfolded(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a node that gives the result its shape [R, H, S, D] and its old name; the node's output gets a new one."""
    whole, name = f"{_PREFIX}_{node.output[0]}", node.output[0]
    node.output[0] = whole
    return helper.make_node("Reshape", [whole, f"{_PREFIX}_shape"], [name])
