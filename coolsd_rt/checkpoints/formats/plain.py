"""Converts checkpoints of networks that third-party packages run: safetensors with the same tensors and names.

These are the networks that `quality` scores with. Knows a tensor that identifies each network. Does not know the
networks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from coolsd_rt.checkpoints.convert import Converted, check_place
from coolsd_rt.checkpoints.reader import CheckpointReader
from coolsd_rt.checkpoints.writer import DTYPES, write_safetensors
from coolsd_rt.errors import UserError
from coolsd_rt.models.finite import NumbersCheck

PLAIN: Mapping[str, str] = {
    "image-reward": "mlp.layers.0.weight",
    "hpsv2": "visual.conv1.weight",
}
"""Family to a tensor name that identifies it."""
_WHOLE = ("i", "u", "bool")  # prefixes of the names of integer dtypes


def convert_plain(source: Path, to: Path, family: str, *, overwrite: bool = False) -> Converted:
    """Convert the checkpoint `source` (torch.save or safetensors) to `to`.

    Integer tensors (counters, positions) are dropped.

    Raises UserError if the file is not a checkpoint, is another network, or has NaN, infinite values or an unsupported
    dtype; CoolsdError if the disk is full.
    """
    begun = time.perf_counter()
    check_place(source, to, overwrite)
    opened = CheckpointReader(source)
    if PLAIN[family] not in opened.tensors:
        names = ", ".join(list(opened.tensors)[:3])
        raise UserError(str(source), expected=f"a checkpoint of {family}, with a tensor {PLAIN[family]}", found=names)
    dropped = [name for name, info in opened.tensors.items() if info.dtype.lower().startswith(_WHOLE)]
    infos = [(name, info) for name, info in opened.tensors.items() if name not in dropped]
    for name, info in infos:
        if info.dtype not in DTYPES:
            raise UserError(f"{source}: {name}", expected=f"one of {', '.join(DTYPES)}", found=info.dtype)
    numbers = NumbersCheck(source)

    def read(name: str) -> Tensor:
        stored = opened.read(name)
        return numbers.passed((name,), stored, stored)

    config = {"family": family}
    size = write_safetensors(
        to, infos, {"format": "pt", "config": json.dumps(config)}, read, check=numbers.check, overwrite=overwrite
    )
    seconds = time.perf_counter() - begun
    return Converted(to, family, config, len(infos), size, len(dropped), seconds, opened.wrappers)
