"""Checkpoints of networks that others' packages run, as safetensors: the same tensors by the same names.

What `quality` scores with. Knows which tensor tells each network; does not know the networks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from coolsd_rt.errors import UserError
from coolsd_rt.models.convert import Converted, check_place
from coolsd_rt.models.convert_source import Source
from coolsd_rt.models.convert_writer import DTYPES, write_safetensors

PLAIN: Mapping[str, str] = {
    "image-reward": "mlp.layers.0.weight",
    "hpsv2": "visual.conv1.weight",
}
"""Families to a tensor that each has."""


def convert_plain(source: Path, to: Path, family: str, *, overwrite: bool = False) -> Converted:
    """Write the checkpoint `source` (torch.save or safetensors) as `to`; tensors of integers, which are counters and
    positions, are dropped. Raises UserError: no checkpoint, another network; CoolsdError: no space."""
    begun = time.perf_counter()
    check_place(source, to, overwrite)
    opened = Source(source)
    if PLAIN[family] not in opened.tensors:
        names = ", ".join(list(opened.tensors)[:3])
        raise UserError(str(source), expected=f"a checkpoint of {family}, with a tensor {PLAIN[family]}", found=names)
    infos = [(name, info) for name, info in opened.tensors.items() if info.dtype in DTYPES]
    config = {"family": family}
    size = write_safetensors(
        to, infos, {"format": "pt", "config": json.dumps(config)}, opened.read, overwrite=overwrite
    )
    dropped = len(opened.tensors) - len(infos)
    return Converted(to, family, config, len(infos), size, dropped, time.perf_counter() - begun)
