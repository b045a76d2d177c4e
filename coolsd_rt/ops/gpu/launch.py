"""Launch a kernel on torch tensors: check shapes, choose kernel or reference, and report errors in one line.

Knows devices, and the kernels by name. Does not know what a kernel computes, nor the operators.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from coolsd_rt.errors import CoolsdError, MissingExtra

_LOGITS = (torch.float32, torch.float16, torch.bfloat16)
_EXPECTED = "triton to compile and launch it"
_FIX = "triton needs a C compiler, Python's headers and an NVIDIA driver; a broken cache is in ~/.triton"


def require(name: str, tensor: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise CoolsdError unless the tensor has this shape and dtype. None passes."""
    if tensor is not None and (tensor.shape != shape or tensor.dtype != dtype):
        raise CoolsdError(
            f"the tensor {name} does not fit",
            expected=f"{dtype} {list(shape)}",
            found=f"{tensor.dtype} {list(tensor.shape)}",
        )


def require_all(shape: tuple[int, ...], dtype: torch.dtype, **tensors: Tensor | None) -> None:
    """Apply `require` to each tensor; the keyword is its name in the error."""
    for name, tensor in tensors.items():
        require(name, tensor, shape, dtype)


def require_out(shape: tuple[int, ...], dtype: torch.dtype, **tensors: Tensor | None) -> None:
    """Apply `require_all` to output tensors, and raise CoolsdError if one is not contiguous.

    A kernel would write to a copy of it.
    """
    require_all(shape, dtype, **tensors)
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_contiguous():
            found = f"strides {list(tensor.stride())}"
            raise CoolsdError(f"the tensor {name} does not fit", expected="a contiguous one", found=found)


def require_logits(logits: Tensor, shape: tuple[int, ...]) -> None:
    """Raise CoolsdError unless the logits have this shape and a dtype that the kernels read."""
    if logits.dtype not in _LOGITS:
        raise CoolsdError("logits on a GPU", expected="float32, float16 or bfloat16", found=str(logits.dtype))
    require("logits", logits, shape, logits.dtype)


def by_kernel(tensor: Tensor) -> bool:
    """Return whether a kernel computes the result, rather than the eager reference."""
    return tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"


KernelLookup = Callable[[str], Any]
"""Returns the kernel of a name. Raises ModuleNotFoundError without triton, so it is called at the launch."""


def kernel_named(name: str) -> Any:
    """Return a kernel of the operators in `ops`, by name. Raises ModuleNotFoundError without triton."""
    from coolsd_rt.ops.gpu import kernels

    return getattr(kernels, name)


def launch(lookup: KernelLookup, kernel: str, programs: int, num_warps: int, *args: Any, **constants: Any) -> None:
    """Launch a kernel on the device of the first argument. Inputs are made contiguous; outputs must be contiguous.

    lookup: returns the kernel of a name.
    programs: size of the one-dimensional grid; 0 launches nothing.

    Raises as `launch_on`.
    """
    given = [arg.contiguous() if isinstance(arg, Tensor) else arg for arg in args]
    if programs == 0:
        return
    # No fused multiply-add: the reference rounds CFG twice, and top-k has to compare the same logits here.
    options = {**constants, "num_warps": num_warps, "enable_fp_fusion": False}
    launch_on(given[0].device, kernel, lookup, (programs,), *given, **options)


def launch_on(
    device: torch.device, name: str, lookup: KernelLookup, grid: tuple[int, ...], *args: Any, **options: Any
) -> None:
    """Launch the kernel that `lookup` returns for a name, on `device` and its current stream.

    Raises MissingExtra without triton; CoolsdError, in one line, if triton cannot compile or launch the kernel.
    """
    try:
        function = lookup(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "triton":
            raise
        raise MissingExtra("triton", "gpu", "running kernels on a GPU") from None
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        try:
            function[grid](*args, **options)
        except Exception as error:  # of triton, its compilers or the driver; the text says which
            raise CoolsdError(f"the kernel {name}", expected=_EXPECTED, found=_told(error), fix=_FIX) from error


def _told(error: Exception) -> str:
    """Return the type and the last line of an error: triton quotes the source first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^\t")]
    return f"{type(error).__name__}: {lines[-1][:300] if lines else 'no reason given'}"
