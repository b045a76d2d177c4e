"""Usage reports of the libraries we load, switched off before any of them is imported.

ONNX Runtime 1.32 and later writes a device id and a queue of events into the user's cache folder as soon as it is
imported, and sends them to Microsoft; its own `disable_telemetry_events()` comes too late for the files.
huggingface_hub, its transfer library hf_xet and transformers tell the hub about the machine with each request; wandb
sends its crashes to its makers. Each reads its variable when it is imported, so the package's own `__init__` calls
`switch_off` first of all: whatever module of ours is imported, the variables are set. Child processes inherit them.

Knows names of variables. Does not know who imports which library; imports none of them.
"""

from __future__ import annotations

import os

OFF = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime, from 1.32
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, hf_xet, transformers
    "WANDB_ERROR_REPORTING": "false",  # wandb; the figures that --wandb asks for are sent all the same
    "DO_NOT_TRACK": "1",  # https://donottrack.sh: whoever else asks
}
"""Variable to the value that means off."""

LIBRARIES = frozenset({"onnxruntime", "huggingface_hub", "hf_xet", "transformers", "wandb"})
"""Import names of the libraries that read one of `OFF`."""


def switch_off() -> None:
    """Set every variable of `OFF` that is not set, or empty. Any other value that the user has set stays."""
    for name, value in OFF.items():
        if not os.environ.get(name):
            os.environ[name] = value
