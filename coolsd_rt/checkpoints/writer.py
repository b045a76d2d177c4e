"""Writes a safetensors file one tensor at a time, so that only one of them is in memory.

Format: the header's length in 8 bytes, the header as JSON, then the bytes of all tensors. Knows this format and atomic
files. Does not know models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from coolsd_rt.errors import CoolsdError
from coolsd_rt.store.atomic import atomic_file, disk_errors, sweep_abandoned
from coolsd_rt.store.weights import TensorInfo

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def header_bytes(tensors: Sequence[tuple[str, TensorInfo]], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes before the data, including the header's length. Data follows in the order of `tensors`."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    here = 0
    for name, info in tensors:
        size = size_of(info)
        header[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [here, here + size]}
        here += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def size_of(info: TensorInfo) -> int:
    """Return the size of a tensor in bytes."""
    return prod(info.shape) * DTYPES[info.dtype].itemsize


def write_safetensors(
    path: Path,
    tensors: Sequence[tuple[str, TensorInfo]],
    metadata: Mapping[str, str],
    read: Callable[[str], Tensor],
    on_tensor: Callable[[int], None] = lambda done: None,
    check: Callable[[], None] = lambda: None,
    *,
    overwrite: bool = False,
) -> int:
    """Write `tensors` in this order, reading each when it is due.

    The file is written atomically. Returns its size in bytes.

    check: called after all tensors are written, before the file appears.

    Raises NameTaken if the file exists and `overwrite` is off, CoolsdError if the disk is full, the folder is not
    writable or a tensor differs from its declaration, and any error of `read` and `check`.
    """
    head = header_bytes(tensors, metadata)
    need = len(head) + sum(size_of(info) for _, info in tensors)
    sweep_abandoned(path)
    with disk_errors(path.parent, need), atomic_file(path, replace=overwrite) as file:
        file.write(head)
        for done, (name, info) in enumerate(tensors):
            file.write(_bytes(name, info, read(name)))  # no reference remains while the next tensor is read
            on_tensor(done + 1)
        check()
    return need


def _bytes(name: str, info: TensorInfo, value: Tensor) -> memoryview:
    if tuple(value.shape) != info.shape or value.dtype != DTYPES[info.dtype]:
        found = f"{value.dtype} {list(value.shape)}"
        raise CoolsdError(name, expected=f"{info.dtype} {list(info.shape)}", found=found)
    return value.contiguous().flatten().view(torch.uint8).numpy().data
