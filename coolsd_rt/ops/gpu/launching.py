"""One way to launch a Triton kernel: on its tensors' device, and what goes wrong is one line.

Knows triton's launches and its errors. Does not know kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from coolsd_rt.errors import CoolsdError, MissingExtra

_EXPECTED = "triton to compile and launch it"
_FIX = "triton needs a C compiler, Python's headers and an NVIDIA driver; a broken cache is in ~/.triton"


def launch(
    name: str, kernel: Callable[[], Any], grid: tuple[int, ...], device: torch.device, *args: Any, **options: Any
) -> None:
    """Launch on `device`; its current stream. kernel: gives the function that triton decorated, on demand.

    Raises MissingExtra without triton; CoolsdError, in one line, where it cannot compile or launch the kernel.
    """
    try:
        function = kernel()
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "triton":
            raise
        raise MissingExtra("triton", "gpu", "running kernels on a GPU") from None
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        try:
            function[grid](*args, **options)
        except Exception as error:  # triton's, its compilers' and the driver's own; the text is what helps
            raise CoolsdError(f"the kernel {name}", expected=_EXPECTED, found=told(error), fix=_FIX) from error


def told(error: Exception) -> str:
    """The type and the last line of an error: triton quotes the source first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^\t")]
    return f"{type(error).__name__}: {lines[-1][:300] if lines else 'no word of why'}"
