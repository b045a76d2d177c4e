"""Parse an ONNX graph into a TensorRT network, and let attention read its caches in place.

Knows TensorRT's parser and how it translates `Attention`. Does not know contracts or engines.

The parser multiplies queries and keys by the root of the scale, even if the scale is 1. A multiplied key cache is no
longer the tensor that the KV update wrote: TensorRT-RTX 1.7.1 then copies all of it in every step, and its output is
not the tensor of its input. `tune_attention` removes these products; the scale is in the weights already.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coolsd_rt.backends.tensorrt.log import Log, reason, shorten
from coolsd_rt.errors import CoolsdError

_THROUGH = ("CAST", "SHUFFLE", "IDENTITY", "UNSQUEEZE")  # layers that do not change the value of a constant


@dataclass(frozen=True)
class Parsed:
    """A network, with the builder and the parser that must live as long as it does."""

    builder: Any
    network: Any
    parser: Any


def parse(trt: Any, log: Log, graph: bytes | Path, name: str, beside: Path | None = None) -> Parsed:
    """Parse a graph as a strongly typed network: every tensor has the precision that the graph gives it.

    graph: the serialised graph; or its path, if its weights lie in the same folder.
    beside: path of the graph's file if `graph` is bytes and its weights lie in that file's folder.

    Raises CoolsdError if the parser does not accept the graph; the error names the node.
    """
    builder = trt.Builder(log)
    flags = trt.NetworkDefinitionCreationFlag.__members__
    # From TensorRT 11 on all networks are strongly typed, and the flag may be missing.
    typed = 1 << int(flags["STRONGLY_TYPED"]) if "STRONGLY_TYPED" in flags else 0
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, log)
    if isinstance(graph, Path):
        taken = parser.parse_from_file(str(graph))
    else:
        taken = parser.parse(graph, str(beside)) if beside is not None else parser.parse(graph)
    if not taken:
        raise CoolsdError(
            f"graph {name}",
            expected="a graph that TensorRT's parser accepts",
            found=_first_error(parser) or reason(log),
        )
    return Parsed(builder, network, parser)


def _first_error(parser: Any) -> str:
    """Return the first of the parser's errors, with its node; "" if it has none."""
    if not parser.num_errors:
        return ""
    error = parser.get_error(0)
    node = f"{error.node_operator()} {error.node_name()}".strip()
    return f"{node}: {shorten(error.desc())}" if node else shorten(error.desc())


def layers_of(network: Any) -> list[Any]:
    """Return all layers of a network."""
    return [network.get_layer(i) for i in range(network.num_layers)]


def attention_of(trt: Any, layer: Any) -> Any:
    """Return the `IAttention` that a layer of type ATTENTION_INPUT begins. TensorRT's binding returns plain layers."""
    layer.__class__ = trt.IAttentionInputLayer
    return layer.attention


def tune_attention(trt: Any, network: Any) -> int:
    """Let attention read caches in place, and allow TensorRT to build it from smaller layers if it has no kernel.

    float32 has no attention kernel. Returns the number of products by 1 that were removed.
    """
    layers = layers_of(network)
    makers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    taken = 0
    for layer in layers:
        if layer.type != trt.LayerType.ATTENTION_INPUT:
            continue
        attention = attention_of(trt, layer)
        attention.decomposable = True
        for index in range(2):  # query and key
            maker = makers.get(attention.get_input(index).name)
            if maker is not None and _times_one(trt, maker, makers):
                attention.set_input(index, maker.get_input(0))
                taken += 1
    return taken


def _times_one(trt: Any, layer: Any, makers: dict[str, Any]) -> bool:
    """Return whether a layer multiplies its first input by a constant 1."""
    if layer.type != trt.LayerType.ELEMENTWISE:
        return False
    layer.__class__ = trt.IElementWiseLayer
    if layer.op != trt.ElementWiseOperation.PROD:
        return False
    at = makers.get(layer.get_input(1).name)
    while at is not None and at.type.name in _THROUGH:
        at = makers.get(at.get_input(0).name)
    if at is None or at.type != trt.LayerType.CONSTANT:
        return False
    at.__class__ = trt.IConstantLayer
    weights = at.weights
    single = getattr(weights, "size", 0) == 1 and str(getattr(weights, "dtype", "")) in ("float32", "float16")
    return single and float(weights.item()) == 1.0
