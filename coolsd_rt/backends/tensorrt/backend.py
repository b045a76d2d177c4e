"""The backends `tensorrt` and `tensorrt-rtx`: a build's engines under the loop on the device.

Knows which loop goes with which steps. Not run on a GPU yet.
"""

from __future__ import annotations

from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.backends.tensorrt.engine import load as load_steps
from coolsd_rt.device.engine import DeviceEngine
from coolsd_rt.store import VerifiedEngine


def load(verified: VerifiedEngine, options: LoadOptions) -> DeviceEngine:
    """The engines of a checked build, each round one CUDA graph. Raises as `tensorrt.engine.load`."""
    return DeviceEngine(load_steps(verified, options))
