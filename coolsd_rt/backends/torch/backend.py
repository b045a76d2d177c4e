"""The backend `torch`: the networks in PyTorch, with the weights of a build, on a CPU or a GPU.

On a GPU it is the reference, and the fast path where TensorRT is not available: each round is one CUDA graph. Knows
which files of an engine are weights. Does not know the round.
"""

from __future__ import annotations

from typing import cast

import torch

from coolsd_rt.backends.description import WEIGHTS, Description
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.backends.torch.eager import Device, TorchEngine
from coolsd_rt.backends.torch.eager import load as load_eager
from coolsd_rt.backends.torch.triton.engine import with_triton
from coolsd_rt.device.engine import DeviceEngine
from coolsd_rt.device.memory import empty_cache, weights_refused
from coolsd_rt.store import VerifiedEngine


def load(verified: VerifiedEngine, options: LoadOptions) -> DeviceEngine:
    """Load the networks of a verified engine, in the dtype of its precision.

    Raises CoolsdError: the spec asks for a GPU and there is none, or its memory is too small for the weights.
    UserError: weights that do not fit the networks.
    """
    try:
        return DeviceEngine(_networks(verified, options))
    except torch.cuda.OutOfMemoryError:
        pass  # leaving the handler frees the tensors that the error's frames hold
    empty_cache()
    raise weights_refused(sum(verified.path(file).stat().st_size for file in _files(verified).values()))


def _files(verified: VerifiedEngine) -> dict[str, str]:
    """Return the weight files of an engine, by network."""
    made = Description.from_dict(verified.manifest.contract)
    left_out = {"draft"} if made.dims.draft_kind == "none" else set()
    left_out |= set() if made.side else {"image"}
    return {name: file for name, file in WEIGHTS.items() if name not in left_out}


def _networks(verified: VerifiedEngine, options: LoadOptions) -> TorchEngine:
    description = Description.from_dict(verified.manifest.contract)
    kind = description.dims.draft_kind
    device = cast(Device, verified.manifest.spec["engine"]["device"])
    engine = load_eager(
        verified.path(WEIGHTS["target"]),
        None if kind == "none" else verified.path(WEIGHTS["draft"]),
        verified.path(WEIGHTS["image"]) if description.side else None,
        options.threads,
        "eagle" if kind == "none" else kind,
        device,
        description.dtype,
    )
    return with_triton(engine) if device == "cuda" else engine
