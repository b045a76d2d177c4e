"""A safetensors file written tensor after tensor, so that one of them is in memory at a time.

The format: the header's length as 8 bytes, the header as JSON, the tensors' bytes one after another. Knows that, and
atomic files. Does not know models.
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
    """What stands before the data, its length included. Data follows in the order of `tensors`."""
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
    """Bytes of a tensor of floats."""
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
    """Write `tensors` in this order, each read when its turn comes. The file appears whole or not at all.

    check: called when all are written, before the file appears.

    Returns its bytes. Raises NameTaken: a file has the name and `overwrite` is off; CoolsdError: no space, a folder
    that cannot be written, a tensor that is not as announced; and whatever `read` and `check` raise.
    """
    head = header_bytes(tensors, metadata)
    need = len(head) + sum(size_of(info) for _, info in tensors)
    sweep_abandoned(path)
    with disk_errors(path.parent, need), atomic_file(path, replace=overwrite) as file:
        file.write(head)
        for done, (name, info) in enumerate(tensors):
            file.write(_bytes(name, info, read(name)))  # nothing holds it while the next is read
            on_tensor(done + 1)
        check()
    return need


def _bytes(name: str, info: TensorInfo, value: Tensor) -> memoryview:
    if tuple(value.shape) != info.shape or value.dtype != DTYPES[info.dtype]:
        found = f"{value.dtype} {list(value.shape)}"
        raise CoolsdError(name, expected=f"{info.dtype} {list(info.shape)}", found=found)
    return value.contiguous().flatten().view(torch.uint8).numpy().data
