"""Check the layers that TensorRT parsed from a graph, and read the kernels of a built engine.

Knows which layers a fast and correct engine has. Does not know how it is built. `read_layers` and `check_layers` need
no GPU. TensorRT's inspector needs a deserialised engine, and so a GPU; `compiled` works without one and reads text that
TensorRT-RTX 1.7.1 stores in its engines. No document describes this text, so it gives facts for a manifest, not a
check.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coolsd_rt.backends.tensorrt.network import attention_of, layers_of
from coolsd_rt.contract import GraphContract, TensorSpec
from coolsd_rt.errors import CoolsdError

DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64", "INT32": "int32", "INT8": "int8",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
# Layers that must have the engine's precision; norms, angles, masks and positions may have another.
HEAVY = ("MATRIX_MULTIPLY", "CONVOLUTION", "KV_CACHE_UPDATE", "ATTENTION_OUTPUT")


@dataclass(frozen=True)
class Value:
    """A tensor of a network; -1 is a dynamic size."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class EngineLayer:
    """A layer. causal and masked describe attention; they are "NONE" and False for all other layers."""

    name: str
    kind: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    causal: str = "NONE"
    masked: bool = False


@dataclass(frozen=True)
class Layers:
    """Inputs, outputs and layers of a parsed network."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    layers: tuple[EngineLayer, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of layers of each kind, for a manifest."""
        return dict(sorted(Counter(layer.kind for layer in self.layers).items()))

    def of(self, kind: str) -> list[EngineLayer]:
        """Return the layers of a kind."""
        return [layer for layer in self.layers if layer.kind == kind]


def read_layers(trt: Any, network: Any) -> Layers:
    """Read all layers of a parsed network. Needs no GPU."""
    return Layers(
        tuple(_value(network.get_input(i)) for i in range(network.num_inputs)),
        tuple(_value(network.get_output(i)) for i in range(network.num_outputs)),
        tuple(_layer(trt, layer) for layer in layers_of(network)),
    )


def _layer(trt: Any, layer: Any) -> EngineLayer:
    kind: str = layer.type.name
    inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
    values = tuple(_value(x) for x in inputs if x is not None)
    outputs = tuple(_value(layer.get_output(i)) for i in range(layer.num_outputs))
    if kind != "ATTENTION_INPUT":
        return EngineLayer(layer.name, kind, values, outputs)
    attention = attention_of(trt, layer)
    masked = attention.mask is not None
    return EngineLayer(layer.name, kind, values, outputs, attention.causal_kind.name, masked)


def _value(tensor: Any) -> Value:
    return Value(tensor.name, DTYPES.get(tensor.dtype.name, tensor.dtype.name), tuple(int(n) for n in tensor.shape))


def check_layers(found: Layers, contract: GraphContract, capacity: int, precision: str, *, name: str = "graph") -> None:
    """Check a parsed network against its contract and its precision (`fp32` | `fp16` | `bf16` | `int8`).

    Raises CoolsdError: other inputs or outputs; a cache that is not written by one KV update from its input to its
    output; attention that is missing, has no mask, or is causal itself (it would treat the first position of the step
    as position 0); heavy layers of another dtype than the contract's; int8 weights that are missing, or present without
    being requested.
    """
    for what, values, specs in (
        ("inputs", found.inputs, contract.inputs),
        ("outputs", found.outputs, contract.outputs),
    ):
        wanted = [_wanted(spec, capacity) for spec in specs]
        odd = next((pair for pair in zip(wanted, values, strict=False) if pair[0] != pair[1]), None)
        if odd or len(values) != len(wanted):
            expected, there = (_text(odd[0]), _text(odd[1])) if odd else (str(len(wanted)), str(len(values)))
            raise CoolsdError(f"{name}: TensorRT's {what}", expected=expected, found=there)
    caches = [spec for spec in contract.inputs if "T" in spec.shape]
    _check_caches(found, caches, name)
    _check_attention(found, len(caches) // 2, name)
    _check_types(found, compute_type(contract), precision, name)


def _wanted(spec: TensorSpec, capacity: int) -> Value:
    return Value(
        spec.name, spec.dtype, tuple(n if isinstance(n, int) else capacity if n == "T" else -1 for n in spec.shape)
    )


def _text(value: Value) -> str:
    return f"{value.name} {value.dtype} {list(value.shape)}"


def _check_caches(found: Layers, caches: Sequence[TensorSpec], name: str) -> None:
    updates = found.of("KV_CACHE_UPDATE")
    if len(updates) != len(caches):
        raise CoolsdError(f"{name}: KV updates", expected=f"{len(caches)}, two a layer", found=str(len(updates)))
    pairs = {(layer.inputs[0].name, layer.outputs[0].name) for layer in updates}
    for spec in caches:
        if (spec.name, f"{spec.name}_out") not in pairs:
            raise CoolsdError(f"{name}: {spec.name}", expected=f"a KV update to {spec.name}_out", found="none")


def _check_attention(found: Layers, wanted: int, name: str) -> None:
    attention = found.of("ATTENTION_INPUT")
    if not wanted:  # an image tokenizer's attention covers the whole image, without caches
        return
    if len(attention) != wanted:
        raise CoolsdError(f"{name}: attention", expected=f"{wanted} layers", found=str(len(attention)))
    if len(found.of("ROTARY_EMBEDDING")) < wanted:
        rotary = len(found.of("ROTARY_EMBEDDING"))
        raise CoolsdError(f"{name}: rotary embeddings", expected=f"at least {wanted}", found=str(rotary))
    for layer in attention:
        if layer.causal != "NONE" or not layer.masked:
            seen = f"causal {layer.causal}" if layer.causal != "NONE" else "no mask"
            raise CoolsdError(f"{name}: {layer.name}", expected="attention under the graph's own mask", found=seen)


def compute_type(contract: GraphContract) -> str | None:
    """Return the dtype a graph computes in: that of its caches, else of its first floating tensor.

    None if it has no floating tensor.
    """
    specs = [*(s for s in contract.inputs if "T" in s.shape), *contract.inputs, *contract.outputs]
    return next((s.dtype for s in specs if "float" in s.dtype), None)


def _check_types(found: Layers, wanted: str | None, precision: str, name: str) -> None:
    for layer in found.layers:
        odd = [v for v in layer.outputs if "float" in v.dtype and v.dtype != wanted]
        if layer.kind in HEAVY and wanted is not None and odd:
            raise CoolsdError(f"{name}: {layer.name}", expected=wanted, found=odd[0].dtype)
    if precision == "int8" and not found.of("KV_CACHE_UPDATE"):  # graphs that run once per image need no int8
        return
    coded = [layer for layer in found.of("DEQUANTIZE") if layer.inputs[0].dtype == "int8"]
    if (precision == "int8") != bool(coded):
        expected = "some" if precision == "int8" else f"none at {precision}"
        raise CoolsdError(f"{name}: int8 matrices", expected=expected, found=str(len(coded)))


@dataclass(frozen=True)
class Compiled:
    """Facts read from the text of a TensorRT-RTX engine.

    attention: number of calls of its fused attention kernels, by kernel name, over all profiles.
    copied: caches that are copied in a step; None: the engine does not tell.
    """

    attention: dict[str, int]
    copied: tuple[str, ...] | None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data for the manifest."""
        return {"attention": self.attention, "copied": None if self.copied is None else list(self.copied)}


_CALL = re.compile(rb"function=\{ name=(\w*mha\w*) ")
_PROGRAM = re.compile(rb'\n +inputs=\{((?: "[^"\n]*")+) \}')
_NAME = re.compile(rb'"([^"\n.]+?)(?: \[profile \d+\])?\.\d+"')


def compiled(data: bytes | memoryview, contract: GraphContract) -> Compiled:
    """Read the text of a serialised engine.

    A program that takes a cache by the name of its input copies it; one that works in place takes it by the name of its
    output.
    """
    caches = {s.name for s in contract.inputs if "T" in s.shape}
    calls = Counter(name.decode() for name in _CALL.findall(data))
    programs = [{n.decode("utf-8", "replace") for n in _NAME.findall(text)} for text in _PROGRAM.findall(data)]
    known = [names for names in programs if names & (caches | {f"{c}_out" for c in caches})]
    copied = tuple(sorted(set().union(*known) & caches)) if known else None
    return Compiled(dict(sorted(calls.items())), copied)
