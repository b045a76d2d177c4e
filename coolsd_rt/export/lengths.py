"""Replace attention masks by sequence lengths, the form for which ONNX Runtime's CUDA provider has fast kernels.

`t <= pos + s` is the causal mask of a window that ends at `pos + S`, so `nonpad_kv_seqlen = pos + S` with `is_causal`
means the same, without a mask in memory. Knows graphs of the contract. Does not serve TensorRT, whose parser drops the
lengths silently, nor models with padded prompts, whose masks also hide the padding.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from coolsd_rt.errors import CoolsdError

_MASK, _LENGTHS = 3, 6  # indices of inputs of Attention, opset 24


def mask_to_lengths(model: onnx.ModelProto) -> int:
    """Rewrite every masked Attention node in place; return the number of nodes.

    model: a step of the contract with inputs `ids` [R, S] and `pos` [R]. A graph without Attention stays unchanged.
    Raises CoolsdError: a padded model.
    """
    graph = model.graph
    if not _masked(graph):
        return 0
    if "start" in {i.name for i in graph.input}:
        raise CoolsdError(
            "attention by lengths", expected="a model whose prompts are not padded", found="an input named start"
        )
    lengths = _lengths(graph)
    nodes = _masked(graph)
    for node in nodes:
        inputs = [*node.input[:_MASK], *[""] * (_LENGTHS - _MASK), lengths]
        del node.input[:]
        node.input.extend(inputs)
        others = [a for a in node.attribute if a.name != "is_causal"]
        del node.attribute[:]
        node.attribute.extend([*others, helper.make_attribute("is_causal", 1)])
    _prune(graph)
    return len(nodes)


def _masked(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [n for n in graph.node if n.op_type == "Attention" and len(n.input) > _MASK and n.input[_MASK]]


def _lengths(graph: onnx.GraphProto) -> str:
    """Add nodes that compute pos + S, int64 [R], before all others; return the name of their output."""
    names = ["coolsd_sizes", "coolsd_second", "coolsd_size", "coolsd_lengths"]
    graph.initializer.append(numpy_helper.from_array(np.array([1]), names[1]))
    made = [
        helper.make_node("Shape", ["ids"], [names[0]]),
        helper.make_node("Gather", [names[0], names[1]], [names[2]], axis=0),
        helper.make_node("Add", ["pos", names[2]], [names[3]]),
    ]
    nodes = [*made, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return names[3]


def _prune(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers that are no longer read: those that computed the mask."""
    wanted = {o.name for o in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if any(o in wanted for o in node.output):
            wanted.update(node.input)
            kept.append(node)
    initializers = [t for t in graph.initializer if t.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)
