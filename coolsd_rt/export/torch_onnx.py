"""Export a torch module of the contract to an ONNX model of the contract.

Knows torch.onnx. Does not know which model it is given, nor its later precision. Large lazy weights are not read: the
graph only names them (`external.Outline`).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import onnx
import onnx_ir
import torch
from torch import Tensor, nn

from coolsd_rt.contract import DType, GraphContract, TensorSpec
from coolsd_rt.errors import CoolsdError
from coolsd_rt.export.external import Make, Outline, Weight, fill, placeholder
from coolsd_rt.export.hollow import hollow, is_hollow
from coolsd_rt.export.ops import OPSET, translations
from coolsd_rt.models.lazy import Lazy
from coolsd_rt.models.lazy import value as numbers_of

# Sizes of the example that is traced. All differ, and none is 0 or 1, which the tracer would treat as constants.
EXAMPLE = {"M": 2, "R": 4, "S": 3, "T": 24, "P": 7}
_DTYPES = {name: getattr(torch, name) for name in get_args(DType)}


def example(spec: TensorSpec) -> Tensor:
    """Return a tensor of ones of the spec's shape: valid as ids, positions, counts and k alike."""
    return torch.ones([EXAMPLE[n] if isinstance(n, str) else n for n in spec.shape], dtype=_DTYPES[spec.dtype])


def _dynamic(spec: TensorSpec, dims: Mapping[str, Any]) -> dict[int, Any]:
    return {i: dims[n] for i, n in enumerate(spec.shape) if isinstance(n, str)}


def _dims(contract: GraphContract) -> dict[str, Any]:
    """Return one torch dimension per name; where images and rows both occur, there are twice as many rows."""
    names = {n for spec in contract.inputs for n in spec.shape if isinstance(n, str)}
    dims: dict[str, Any] = {n: torch.export.Dim(n, min=1) for n in sorted(names)}
    if {"M", "R"} <= names:
        dims["R"] = 2 * dims["M"]
    return dims


def _is_cache(spec: TensorSpec) -> bool:
    return "T" in spec.shape


def nest(contract: GraphContract, values: Sequence[Any]) -> tuple[Any, ...]:
    """Group values, given in the order of the inputs, into the arguments of a graph module.

    All caches form one tuple, at the place of the first.
    """
    parts: list[Any] = []
    for caches, pairs in itertools.groupby(zip(contract.inputs, values, strict=True), lambda pair: _is_cache(pair[0])):
        group = [value for _, value in pairs]
        parts += [tuple(group)] if caches else group
    return tuple(parts)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's output on stdout, in warnings and in logs; it does not concern the user of a build."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [x.level for x in loggers]
    for x in loggers:
        x.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for x, level in zip(loggers, levels, strict=True):
            x.setLevel(level)


def to_onnx(module: nn.Module, contract: GraphContract) -> onnx.ModelProto:
    """Export `module`: forward takes the contract's inputs in order (caches as one tuple) and returns its outputs.

    Raises CoolsdError if torch cannot export the module.
    """
    outline = to_outline(module, contract)
    fill(outline)
    return outline.model


def to_outline(module: nn.Module, contract: GraphContract) -> Outline:
    """Export as `to_onnx` does, but leave large lazy weights in their files.

    Raises CoolsdError if torch cannot export the module.
    """
    used: dict[str, Weight] = {}
    with hollow(module) as large, _told(module), _quiet(), torch.no_grad():
        program = _traced(module, contract)
        for name, initializer in program.model.graph.initializers.items():
            if not is_hollow(getattr(initializer.const_value, "raw", None)):
                continue
            if name not in large:
                raise ValueError(f"the weight {name} under another name")
            used[name] = Weight(_maker(large[name]))
            # The optimizer treats this as an external file and does not read it.
            proto = placeholder(name, int(initializer.const_value.dtype), tuple(large[name].shape))
            initializer.const_value = onnx_ir.serde.deserialize_tensor(proto)
        program.optimize()
        model: onnx.ModelProto = program.model_proto
    _name_dims(model, contract)
    _strip(model)
    _size_masks(model)
    return Outline(model, used)


def _maker(x: Lazy) -> Make:
    return lambda: (numbers_of(x).contiguous().view(torch.uint8).numpy(),)


@contextlib.contextmanager
def _told(module: nn.Module) -> Iterator[None]:
    """Turn errors of the exporter into a CoolsdError of one line."""
    try:
        yield
    except (torch.onnx.OnnxExporterError, RuntimeError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise CoolsdError(f"exporting {type(module).__name__}", expected="a graph", found=first) from error


def _traced(module: nn.Module, contract: GraphContract) -> Any:
    dims = _dims(contract)
    args = nest(contract, [example(s) for s in contract.inputs])
    shapes = nest(contract, [_dynamic(s, dims) for s in contract.inputs])
    traced = torch.export.export(module.eval(), args, dynamic_shapes=shapes, strict=False)
    program = torch.onnx.export(
        traced,
        dynamo=True,
        opset_version=OPSET,
        input_names=[s.name for s in contract.inputs],
        output_names=[s.name for s in contract.outputs],
        custom_translation_table=dict(translations()),
        optimize=False,
        verbose=False,
    )
    if program is None:
        raise ValueError("nothing")
    return program


def _name_dims(model: onnx.ModelProto, contract: GraphContract) -> None:
    """Give varying dimensions the contract's names; the tracer's names are formulas (2*M) or symbols (u0)."""
    values = [*model.graph.input, *model.graph.output]
    for value, spec in zip(values, (*contract.inputs, *contract.outputs), strict=True):
        for dim, name in zip(value.type.tensor_type.shape.dim, spec.shape, strict=False):
            if isinstance(name, str) and not dim.HasField("dim_value"):
                dim.dim_param = name


def _size_masks(model: onnx.ModelProto) -> None:
    """State the sizes of a tree's mask, before and after its write (`ops.branch_mask`).

    ONNX Runtime writes in place only where it knows that both have one size; elsewhere it copies, and warns at each
    step.
    """
    for node in model.graph.node:
        if node.op_type == "TensorScatter" and node.input[1] == "seen":
            for name in (node.input[0], node.output[0]):
                sizes = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, ["R", "S", "T"])
                model.graph.value_info.append(sizes)


def _strip(model: onnx.ModelProto) -> None:
    """Remove the tracer's metadata: it holds paths and line numbers of the exporting machine."""
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    model.graph.doc_string = ""
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
