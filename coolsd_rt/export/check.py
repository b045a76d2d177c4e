"""Checks of an exported graph: the contract's inputs and outputs, and the operators that keep it fast.

Knows ONNX protobufs. Does not run anything.
"""

from __future__ import annotations

from collections import Counter

import onnx

from coolsd_rt.contract import GraphContract, TensorSpec
from coolsd_rt.errors import CoolsdError

OPSET = 24
_TYPES = {
    onnx.TensorProto.INT64: "int64", onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16", onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.BOOL: "bool",
}  # fmt: skip
# Each would copy the cache instead of writing in place.
_COPYING = ("ScatterND", "ScatterElements", "Scatter")


def check_graph(model: onnx.ModelProto, contract: GraphContract, *, name: str = "graph") -> None:
    """Check that a graph fulfils its contract.

    Raises CoolsdError: other names, types or dimensions; another opset, or operators outside the standard; a cache that
    is not written by exactly one TensorScatter straight from its input to its output.
    """
    opsets = {o.domain: o.version for o in model.opset_import}
    if opsets != {"": OPSET}:
        raise CoolsdError(f"{name}: opset", expected=f"the standard's {OPSET} alone", found=str(opsets))
    if odd := sorted({n.op_type for n in model.graph.node if n.domain not in ("", "ai.onnx")}):
        raise CoolsdError(f"{name}: operators", expected="the standard's", found=", ".join(odd))
    _check_side(f"{name}: inputs", model.graph.input, contract.inputs)
    _check_side(f"{name}: outputs", model.graph.output, contract.outputs)
    _check_caches(model, contract, name)


def _check_side(what: str, values: object, specs: tuple[TensorSpec, ...]) -> None:
    found = [_spec(v) for v in values]  # type: ignore[attr-defined]
    if len(found) != len(specs):
        raise CoolsdError(what, expected=f"{len(specs)} tensors", found=str(len(found)))
    for here, there in zip(found, specs, strict=True):
        if here != there:
            raise CoolsdError(f"{what}: {there.name}", expected=_text(there), found=_text(here))


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    dims = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim)
    return TensorSpec(value.name, _TYPES.get(kind.elem_type, "another type"), dims)  # type: ignore[call-overload]


def _text(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _check_caches(model: onnx.ModelProto, contract: GraphContract, name: str) -> None:
    caches = [s.name for s in contract.inputs if "T" in s.shape]
    ops = Counter(n.op_type for n in model.graph.node)
    if caches and (copying := [op for op in _COPYING if ops[op]]):
        raise CoolsdError(f"{name}: operators", expected="TensorScatter", found=copying[0])
    for cache in caches:
        writers = [n for n in model.graph.node if cache in n.input and n.op_type != "Shape"]
        straight = len(writers) == 1 and writers[0].op_type == "TensorScatter" and writers[0].input[0] == cache
        if not straight or list(writers[0].output) != [f"{cache}_out"]:
            found = ", ".join(f"{n.op_type} to {n.output[0]}" for n in writers) or "nothing"
            raise CoolsdError(f"{name}: {cache}", expected=f"one TensorScatter to {cache}_out", found=found)
