"""What a GPU check ran on: the GPU, its driver, packages, and how fast its memory really is.

Knows torch and nvidia-smi. Does not know models.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import torch

from coolsd_rt.machine import machine
from coolsd_rt.store import tool_versions

PACKAGES = (
    "torch", "triton", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt_rtx_cu13", "numpy",
    "transformers",
)  # fmt: skip
_COPY_BYTES = 1 << 32
_REPEATS = 20


def environment(device: str) -> dict[str, Any]:
    """JSON data. device: `cuda`, or `cpu` for a rehearsal without one."""
    return {
        **machine(torch.get_num_threads()),
        "packages": tool_versions(PACKAGES),
        "gpu": _gpu() if device == "cuda" else None,
    }


def _gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "driver": _driver(),
        "cuda": torch.version.cuda,
    }


def _driver() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown: no nvidia-smi"
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown: {error}"
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"


def read_bandwidth(device: str) -> float:
    """Bytes a second of the faster of a sum, which reads, and a copy, which reads and writes: what weights and caches
    could at best be read at. On random numbers: zeros can be faster than any."""
    size = _COPY_BYTES if device == "cuda" else 1 << 26
    data = torch.empty(size // 4, device=device).uniform_()
    other = torch.empty_like(data)
    reading = size / best_of(data.sum, _REPEATS, device)
    copying = 2 * size / best_of(lambda: other.copy_(data), _REPEATS, device)
    return max(reading, copying)


def best_of(work: Any, repeats: int, device: str) -> float:
    """Seconds of the fastest of `repeats` runs, on the device's own clock."""
    work()
    times = [timed(work, device) for _ in range(repeats)]
    return min(times)


def timed(work: Any, device: str) -> float:
    """Seconds of one run, on the device's own clock."""
    if device != "cuda":
        import time

        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
