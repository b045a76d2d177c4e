"""The backends `tensorrt` and `tensorrt-rtx`: a build's engines under the device loop.

Knows which loop runs these engines. Does not know their steps. Not run on a GPU yet.
"""

from __future__ import annotations

from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.backends.tensorrt.engine import load as load_steps
from coolsd_rt.device.engine import DeviceEngine
from coolsd_rt.store import VerifiedEngine


def load(verified: VerifiedEngine, options: LoadOptions) -> DeviceEngine:
    """Load the engines of a verified build; each round is one CUDA graph. Raises as `tensorrt.engine.load`."""
    return DeviceEngine(load_steps(verified, options))
