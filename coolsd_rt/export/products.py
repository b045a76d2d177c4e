"""The products of a graph whose matrix is a constant: what int8 can be applied to.

Knows graphs. Does not know precisions.
"""

from __future__ import annotations

import onnx


def constant_products(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the MatMul nodes of each initializer [K, N] that is the right side of MatMuls and of nothing else."""
    constants = {t.name: len(t.dims) for t in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    others = {o.name for o in graph.output}
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name in constants:
                users.setdefault(name, []).append(node)
                if node.op_type != "MatMul" or at != 1 or constants[name] != 2:
                    others.add(name)
    return {name: nodes for name, nodes in users.items() if name not in others}
