"""Converts the published weights of the FID Inception network to the safetensors file that `quality --inception` reads.

Knows the tensor names of `pt_inception-2015-12-05-6726825d.pth` (pytorch-fid) and
`weights-inception-2015-12-05-6726825d.pth` (torch-fidelity), which are the same. Refuses torchvision's ImageNet
network, whose distances are not FID. Does not know images.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from coolsd_rt.checkpoints.convert import Converted, check_place
from coolsd_rt.checkpoints.reader import CheckpointReader
from coolsd_rt.checkpoints.writer import DTYPES, write_safetensors
from coolsd_rt.errors import UserError
from coolsd_rt.models.finite import NumbersCheck
from coolsd_rt.models.inception import FAMILY, WIDTH, shapes
from coolsd_rt.store.weights import TensorInfo

_CLASSES = 1008  # classes of the FID network; the ImageNet network has 1,000
_HEAD = ("fc.weight", "fc.bias")  # layers after the features


def convert_inception(source: Path, to: Path, *, overwrite: bool = False) -> Converted:
    """Convert the checkpoint `source` (torch.save or safetensors) to `to`, in float32.

    One tensor is in memory at a time. Drops the classifier and training counters.

    Raises UserError if the file is not a checkpoint or is another network, or a tensor is missing, surplus, of another
    shape, or has NaN or infinite values; CoolsdError if the disk is full.
    """
    begun = time.perf_counter()
    check_place(source, to, overwrite)
    opened, wanted = CheckpointReader(source), shapes()
    dropped = [name for name in opened.tensors if name in _HEAD or name.endswith(".num_batches_tracked")]
    _check(source, {k: v for k, v in opened.tensors.items() if k not in dropped}, wanted)
    head = opened.tensors.get("fc.weight")
    if head is not None and head.shape != (_CLASSES, WIDTH):
        found = f"{list(head.shape)}, as torchvision's ImageNet network has it"
        raise UserError(f"{source}: fc.weight", expected=f"[{_CLASSES}, {WIDTH}] of {FAMILY}", found=found)

    numbers = NumbersCheck(source)

    def read(name: str) -> torch.Tensor:
        stored = opened.read(name)
        return numbers.passed((name,), stored, stored.to(torch.float32))

    infos = [(name, TensorInfo("F32", wanted[name])) for name in sorted(wanted, key=opened.order)]
    config = {"family": FAMILY}
    size = write_safetensors(
        to, infos, {"format": "pt", "config": json.dumps(config)}, read, check=numbers.check, overwrite=overwrite
    )
    seconds = time.perf_counter() - begun
    return Converted(to, FAMILY, config, len(infos), size, len(dropped), seconds, opened.wrappers)


def _check(source: Path, found: dict[str, TensorInfo], wanted: dict[str, tuple[int, ...]]) -> None:
    for name in (*wanted, *found):
        if name not in wanted:
            there = str(list(found[name].shape))
            raise UserError(f"{source}: {name}", expected=f"no such tensor in {FAMILY}", found=there)
        if name not in found or found[name].shape != wanted[name] or found[name].dtype not in DTYPES:
            there = f"{found[name].dtype} {list(found[name].shape)}" if name in found else "none"
            raise UserError(f"{source}: {name}", expected=f"floats {list(wanted[name])}", found=there)
