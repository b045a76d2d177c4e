"""Checkpoints of networks that others' packages run, as safetensors: the same tensors by the same names.

What `quality` scores with. Knows which tensor tells each network; does not know the networks.
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
"""Families to a tensor that each has."""
_WHOLE = ("i", "u", "bool")  # first letters of the types of whole numbers


def convert_plain(source: Path, to: Path, family: str, *, overwrite: bool = False) -> Converted:
    """Write the checkpoint `source` (torch.save or safetensors) as `to`; tensors of integers, which are counters and
    positions, are dropped. Raises UserError: no checkpoint, another network, numbers that are NaN or infinite or of a
    type we do not write; CoolsdError: no space."""
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
