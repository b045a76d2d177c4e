"""The backend `torch`: the networks themselves, with the weights of a build, on a CPU or a GPU.

On a GPU it is the reference, and a fast path where TensorRT cannot be had: each round is one CUDA graph. Knows which
files of an engine are weights. Does not know the round.
"""

from __future__ import annotations

from typing import cast

from coolsd_rt.backends.description import WEIGHTS, Description
from coolsd_rt.backends.device.engine import DeviceEngine
from coolsd_rt.backends.registry import Options
from coolsd_rt.backends.torch_eager import Device
from coolsd_rt.backends.torch_eager import load as load_eager
from coolsd_rt.store import VerifiedEngine


def load(verified: VerifiedEngine, options: Options) -> DeviceEngine:
    """The networks of a checked engine, in the type of its precision.

    Raises CoolsdError: the spec asks for a GPU and there is none. UserError: weights that do not fit.
    """
    description = Description.from_dict(verified.manifest.contract)
    kind = description.dims.draft_kind
    device = cast(Device, verified.manifest.spec["engine"]["device"])
    models = load_eager(
        verified.path(WEIGHTS["target"]),
        None if kind == "none" else verified.path(WEIGHTS["draft"]),
        verified.path(WEIGHTS["image"]),
        options.threads,
        "model" if kind == "model" else "eagle",
        device,
        description.dtype,
    )
    return DeviceEngine(models)
