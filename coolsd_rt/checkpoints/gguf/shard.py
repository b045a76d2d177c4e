"""Reads the tensors of a GGUF file, one at a time; quantised ones are dequantised to float32 by the package `gguf`.

Knows the tensor types of the format. Does not know the meaning of tensors, or of the metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coolsd_rt.checkpoints.gguf.header import GGUF_FILE, TensorPlace, read_header
from coolsd_rt.errors import UserError
from coolsd_rt.files import open_plain
from coolsd_rt.store.weights import TensorInfo

_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_AT_ONCE = 1 << 22  # numbers that are dequantised at once: the library makes several copies of them


class GGUFShard:
    """One GGUF file.

    Attributes:
        tensors: tensor name to shape and the dtype that `read` returns: as stored, or float32 for a quantised type.
        fields: the metadata.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError and MissingExtra as `read_header` does, and UserError for a type that cannot be read."""
        self.path = path
        header = read_header(path)
        self.fields: Mapping[str, Any] = header.fields
        self._places = header.tensors
        parts = self.fields.get("split.count", 1)
        if not isinstance(parts, int) or parts > 1:
            fix = "join its parts: llama-gguf-split --merge"
            raise UserError(f"{path}: split.count", expected="a model in one file", found=str(parts)[:60], fix=fix)
        for name, place in self._places.items():
            if place.kind not in _PLAIN and not _can_read(place.number):
                expected = "a type that the package gguf dequantises, such as F16, Q8_0 or Q4_K"
                raise UserError(f"{path}: {name}", expected=expected, found=place.kind)
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(place.kind if place.kind in _PLAIN else "F32", place.shape)
            for name, place in self._places.items()
        }

    def read(self, name: str) -> Tensor:
        """Return a tensor by its name in the file. Raises UserError if the file was cut after it was opened."""
        place = self._places[name]
        with open_plain(self.path, GGUF_FILE) as file:
            file.seek(place.at)
            if place.kind in _PLAIN:
                data = bytearray(self._bytes(file, place.size))
                return torch.frombuffer(data, dtype=_PLAIN[place.kind]).reshape(place.shape)
            return self._dequantised(file, place)

    def _dequantised(self, file: Any, place: TensorPlace) -> Tensor:
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        rows, columns = prod(place.shape[:-1]), place.shape[-1]
        made = torch.empty(rows, columns)
        step = max(1, _AT_ONCE // columns)
        for first in range(0, rows, step):
            count = min(step, rows - first)
            data = self._bytes(file, place.size // rows * count)
            blocks = np.frombuffer(data, np.uint8).reshape(count, -1)
            with np.errstate(all="ignore"):  # a damaged scale may be NaN, which `convert` reports
                values = dequantize(blocks, GGMLQuantizationType(place.number))
            made[first : first + count] = torch.from_numpy(np.ascontiguousarray(values, np.float32))
        return made.reshape(place.shape)

    def _bytes(self, file: Any, size: int) -> bytes:
        data: bytes = file.read(size)
        if len(data) != size:
            found = "a file that was cut while it was read"
            raise UserError(str(self.path), expected=GGUF_FILE, found=found, fix="get the file again")
        return data


@cache
def _can_read(number: int) -> bool:
    """Whether the library dequantises a type: it is asked with one block of zeros."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(number)
    try:
        with np.errstate(all="ignore"):
            dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True
