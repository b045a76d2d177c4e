"""Switches off the telemetry of libraries before any of them is imported.

ONNX Runtime 1.32 and later writes a device id and an event queue to the user's cache folder when it is imported, and
sends them to Microsoft; its `disable_telemetry_events()` is too late for the files. huggingface_hub, its transfer
library hf_xet and transformers send information about the machine with each request to the hub; wandb sends crash
reports to its makers. Each library reads its environment variable when it is imported, so the package's `__init__`
calls `switch_off` first: whichever module of this package is imported, the variables are set. Child processes inherit
them.

Knows names of variables. Does not know who imports which library; imports none of them.
"""

from __future__ import annotations

import os

OFF = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime, from 1.32
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, hf_xet, transformers
    "WANDB_ERROR_REPORTING": "false",  # wandb; figures requested by --wandb are still sent
    "DO_NOT_TRACK": "1",  # https://donottrack.sh: read by other tools
}
"""Variable to the value that disables telemetry."""

LIBRARIES = frozenset({"onnxruntime", "huggingface_hub", "hf_xet", "transformers", "wandb"})
"""Import names of the libraries that read one of `OFF`."""


def switch_off() -> None:
    """Set every variable of `OFF` that is unset or empty. A value that the user has set is kept."""
    for name, value in OFF.items():
        if not os.environ.get(name):
            os.environ[name] = value
