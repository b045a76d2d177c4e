"""The launches of a fused step, noted instead of run, and their kernels compiled for GPUs that are not here.

Knows what a launch is. Does not know what a kernel computes, nor how long it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from coolsd_rt.backends.torch.triton.launch import Launcher, kernel_of
from tools.gpu.offline_ops import Compiled, compiled_as

_TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
}


@dataclass(frozen=True)
class Launch:
    """One launch. args: the kernel's parameters that are not constants, in its order."""

    name: str
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes another kernel of it, or another grid."""
        kinds = tuple(_kind(arg) for arg in self.args)
        return self.name, self.grid, kinds, tuple(sorted((k, v) for k, v in self.options.items()))

    def compiled(self, arch: int) -> Compiled:
        """Its kernel for compute capability `arch`. Raises as `ops.gpu.offline.compiled`."""
        function, options = kernel_of(self.name), dict(self.options)
        fixed = {name: options.pop(name) for name in function.arg_names if name in options}
        given = iter(self.args)
        signature: dict[str, str] = {}
        for name in function.arg_names:
            kind = "constexpr" if name in fixed else _kind(arg := next(given))
            if kind == "constexpr" and name not in fixed:
                fixed[name] = arg
            signature[name] = kind
        return compiled_as(function, signature, fixed, arch, options)


@dataclass
class Notebook(Launcher):
    """A launcher that notes its launches; over tensors of the device `meta` it needs no memory either."""

    launches: list[Launch] = field(default_factory=list)

    def _run(self, name: str, grid: tuple[int, ...], num_warps: int, *args: Any, **constants: Any) -> None:
        self.launches.append(Launch(name, grid, args, self._options(num_warps, constants)))

    def noted(self, work: Callable[[], Any]) -> list[Launch]:
        """What `work` launches."""
        begin = len(self.launches)
        work()
        return self.launches[begin:]


def _kind(arg: Any) -> str:
    if arg is None:
        return "constexpr"
    if isinstance(arg, Tensor):
        return f"*{_TYPES[arg.dtype]}"
    return "i32" if isinstance(arg, int) else "fp32"
