"""The machine that figures are measured on: processor, usable cores, load, and versions.

Knows this machine. Does not know what is measured.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from coolsd_rt import __version__, cores
from coolsd_rt.store import tool_versions


def machine(threads: int) -> dict[str, Any]:
    """Return facts about the machine as JSON data.

    threads: threads of the engine. load_average in the result: mean number of runnable processes over the last minute,
    0 where the system does not report it.
    """
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    model = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.processor())
    return {
        "cpu": model or platform.machine(),
        "cores": cores.here().usable,
        "cores_are": cores.here().why,
        "threads": threads,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        "python": platform.python_version(),
        "versions": {"coolsd-rt": __version__, **tool_versions(["numpy", "onnxruntime", "onnxruntime-gpu", "torch"])},
    }
