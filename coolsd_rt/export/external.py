"""A graph whose weights are produced on demand, and its ONNX file: large weights go into a second file.

An ONNX file is one protobuf message, which is limited to 2 GiB; ONNX Runtime maps an external weights file into memory
instead of copying it. Weights are produced and written one at a time. Knows ONNX protobufs and bytes. Does not know how
a weight is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

LARGEST = 16 << 20
"""Bytes of weights above which they go into a separate file, which ONNX Runtime maps: parsing a graph copies its
message several times (docs/start-up.md). Far below protobuf's limit of 2 GiB; smaller graphs gain nothing."""
_ALIGNED = 4096  # page size: mapped weights are read in place
_SMALL = 1024  # largest constant, in bytes, that stays in the graph: checks read shapes and scalars
_PLACE = "to be written"

Bytes = NDArray[Any]
Make = Callable[[], tuple[Bytes, ...]]


@dataclass(frozen=True)
class Weight:
    """One of the tensors that a call of `make` produces (a matrix; or its codes and its scales). part: its index."""

    make: Make
    part: int = 0


@dataclass
class Outline:
    """A graph, and the functions that produce its placeholder initializers, which have only a type and a shape."""

    model: onnx.ModelProto
    weights: dict[str, Weight] = field(default_factory=dict)


def placeholder(name: str, dtype: int, shape: tuple[int, ...]) -> onnx.TensorProto:
    """Return an initializer without content. dtype: an enum value of `onnx.TensorProto`."""
    tensor = onnx.TensorProto(name=name, data_type=dtype, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
    _point(tensor, _PLACE, 0, size_of(tensor))
    return tensor


def size_of(tensor: onnx.TensorProto) -> int:
    """Return the size of an initializer's content in bytes, wherever the content is stored."""
    return int(prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def read(outline: Outline, tensor: onnx.TensorProto) -> NDArray[Any]:
    """Return the content of an initializer, in its type and shape."""
    weight = outline.weights.get(tensor.name)
    if weight is None:
        return numpy_helper.to_array(tensor)
    data = weight.make()[weight.part]
    shape: NDArray[Any] = data.view(helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tuple(tensor.dims))
    return shape


def write(outline: Outline, path: Path, data: Path, largest: int | None = None) -> bool:
    """Write a graph with all of its weights to `path`; weights of more than `largest` bytes go into the file `data`.

    largest: None is `LARGEST`.

    Afterwards the outline's graph is as in the file: it contains the weights, or refers to `data`. Returns whether
    `data` was written.
    """
    model = outline.model
    beside = sum(size_of(t) for t in model.graph.initializer) > (LARGEST if largest is None else largest)
    if beside:
        with data.open("xb") as file:
            _stream(outline, file, data.name)
    else:
        fill(outline)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return beside


def fill(outline: Outline) -> None:
    """Put every weight into the graph itself."""
    for tensor, data, _ in _made(outline):
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = data.tobytes()


def _made(outline: Outline) -> Iterator[tuple[onnx.TensorProto, Bytes, tuple[int, int]]]:
    """Yield every placeholder initializer, its content, and an identity of that content. Holds one weight at a time."""
    last: Make | None = None
    parts: tuple[Bytes, ...] = ()
    for tensor in outline.model.graph.initializer:
        weight = outline.weights.get(tensor.name)
        if weight is None:
            continue
        if weight.make is not last:
            parts = ()  # free the last weight before the next is made
            last, parts = weight.make, weight.make()
        yield tensor, parts[weight.part], (id(weight.make), weight.part)


def _stream(outline: Outline, file: BinaryIO, location: str) -> None:
    """Write the weights to `file` and let the initializers refer to it; shared content is written once."""
    places: dict[tuple[int, int], int] = {}
    for tensor, data, which in _made(outline):
        if which not in places:
            places[which] = _append(file, np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
        _point(tensor, location, places[which], size_of(tensor))
    for tensor in outline.model.graph.initializer:
        if tensor.HasField("raw_data") and len(tensor.raw_data) > _SMALL:
            offset, size = _append(file, memoryview(tensor.raw_data)), len(tensor.raw_data)
            tensor.ClearField("raw_data")
            _point(tensor, location, offset, size)


def _append(file: BinaryIO, data: memoryview) -> int:
    """Write `data` at the next page boundary and return its offset."""
    file.write(bytes(-file.tell() % _ALIGNED))
    at = file.tell()
    file.write(data)
    return at


def _point(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=text)
