"""The kernels compiled for GPUs that are not here: PTX, cubin, and what a program of each costs.

Ours is the signature of each kernel; the compilers and the disassembler that reads the costs come with triton. Compiles
on any machine in seconds. Does not run anything, and knows neither times nor how many programs share a processor.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coolsd_rt.device import round_ops
from coolsd_rt.errors import CoolsdError, MissingExtra
from coolsd_rt.ops.gpu import launch
from coolsd_rt.ops.gpu.shapes import block, process_warps, warps

Kernel = Literal["process_logits", "sample", "verify", "window", "draft_token", "commit"]
LAW_KERNELS = ("process_logits", "sample", "verify")

# Every parameter that is no constant. A parameter given a constant leaves the signature (None: an input left out).
SIGNATURES: dict[Kernel, dict[str, str]] = {
    "process_logits": {
        "logits": "*fp32", "scale": "*fp32", "forced": "*i64", "u": "*fp32", "temperature": "fp32", "top_k": "i32",
        "top_p": "fp64", "probs": "*fp32", "tokens": "*i64",
    },
    "sample": {"weights": "*fp32", "u": "*fp32", "tokens": "*i64", "fault": "*i32"},
    "verify": {
        "target": "*fp32", "draft": "*fp32", "tokens": "*i64", "num_drafts": "*i64", "omegas": "*fp64",
        "u_accept": "*fp32", "u_resample": "*fp32", "forced": "*i1", "rates": "*fp64", "L": "i32", "accepted": "*i64",
        "token": "*i64", "degenerate": "*i1", "fault": "*i32",
    },
    "window": {
        "codes": "*i64", "committed": "*i64", "num_pending": "*i64", "draft_allowed": "*i1", "uniforms": "*fp32",
        "scales": "*fp32", "fixed": "*i64", "N": "i32", "L": "i32", "W": "i32", "shift": "i32", "num_drafts": "*i64",
        "u_draft": "*fp32", "u_accept": "*fp32", "u_resample": "*fp32", "scale": "*fp32", "forced": "*i64",
        "is_forced": "*i1", "first": "*i64", "ids": "*i64", "pos": "*i64", "last": "*i64",
    },
    "draft_token": {
        "logits": "*fp32", "last": "*i64", "u": "*fp32", "scale": "*fp32", "forced": "*i64", "temperature": "fp32",
        "top_k": "i32", "top_p": "fp64", "least": "fp32", "S": "i32", "L": "i32", "i": "i32", "num_drafts": "*i64",
        "peaks": "*fp32", "q": "*fp32", "drafts": "*i64", "ids": "*i64", "token": "*i64",
    },
    "commit": {
        "accepted": "*i64", "token": "*i64", "empty": "*i1", "broken": "*i32", "num_drafts": "*i64", "drafts": "*i64",
        "p": "*fp32", "least": "fp32", "N": "i32", "L": "i32", "W": "i32", "codes": "*i64", "committed": "*i64",
        "num_pending": "*i64", "draft_allowed": "*i1", "rounds": "*i64", "histogram": "*i64", "attempts": "*i64",
        "accepts": "*i64", "degenerate": "*i64", "proposed": "*i64", "fault": "*i32",
    },
}  # fmt: skip

_USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture, and what one program of it takes."""

    name: str  # the entry point in ptx and cubin
    arch: int  # 90 is sm_90
    ptx: str
    cubin: bytes
    warps: int
    shared: int  # bytes of dynamic shared memory, given at launch
    registers: int  # a thread
    spilled: int  # bytes of stack and local memory a thread; nothing else of ours lives there


def compiled(
    kernel: Kernel,
    arch: int,
    vocab: int,
    constants: Mapping[str, Any] | None = None,
    logits: str = "fp32",
    aligned: bool = True,
    ptx_version: int | None = None,
) -> Compiled:
    """A kernel for compute capability `arch` (80, 90, 120) and V = vocab, with num_warps as a launch has it.

    constants: parameters with fixed values, None for an input left out; KIND and LB have defaults (optimal, 8).
    logits: their type, fp32, fp16 or bf16. aligned: every pointer is a multiple of 16
    bytes, as allocators give them, so that loads are wide. ptx_version: 87 is PTX 8.7; None = triton's choice, which
    only its own assembler and the newest drivers may know.

    Raises MissingExtra without triton, CoolsdError where its compiler fails.
    """
    try:
        lookup = launch.kernel_named if kernel in LAW_KERNELS else round_ops.kernel_named
        function = lookup(kernel)
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    fixed: dict[str, Any] = {"KIND": "optimal", "LB": 8, **block(vocab), **(constants or {})}
    fixed = {name: value for name, value in fixed.items() if name in function.arg_names}
    types = {**SIGNATURES[kernel], "logits": f"*{logits}"}
    signature = {name: "constexpr" if name in fixed else types[name] for name in function.arg_names}
    options: dict[str, Any] = {"num_warps": _warps(kernel, vocab, fixed), "enable_fp_fusion": False}
    if ptx_version is not None:
        options["ptx_version"] = ptx_version
    return compiled_as(function, signature, fixed, arch, options, aligned)


def compiled_as(
    function: Any,
    signature: Mapping[str, str],
    fixed: Mapping[str, Any],
    arch: int,
    options: Mapping[str, Any],
    aligned: bool = True,
) -> Compiled:
    """Any function that triton decorated. signature: the type of each parameter, `constexpr` for those in `fixed`.

    options: num_warps and what else a launch has. Raises as `compiled`.
    """
    try:
        import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from triton.backends.compiler import GPUTarget  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    pointers = [i for i, kind in enumerate(signature.values()) if kind.startswith("*")]
    attributes = {(i,): [["tt.divisibility", 16]] for i in pointers} if aligned else {}
    source = triton.compiler.ASTSource(function, dict(signature), dict(fixed), attributes)
    try:
        built = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=dict(options))
    except Exception as error:  # its compilers raise types of their own; the text is what helps
        raise CoolsdError(f"compiling {function.__name__} for sm_{arch} failed", found=str(error)) from error
    cubin: bytes = built.asm["cubin"]
    registers, spilled = _usage(cubin)
    shared, many = int(built.metadata.shared), int(options["num_warps"])
    return Compiled(built.metadata.name, arch, built.asm["ptx"], cubin, many, shared, registers, spilled)


def _missing(error: ModuleNotFoundError) -> Exception:
    if (error.name or "").split(".")[0] != "triton":
        return error
    return MissingExtra("triton", "gpu", "compiling kernels for a GPU")


def _warps(kernel: Kernel, vocab: int, fixed: Mapping[str, Any]) -> int:
    """As a launch has it: one where a program holds no row."""
    if kernel == "window" or (kernel == "commit" and "p" in fixed):
        return 1
    return process_warps(vocab) if kernel in ("process_logits", "draft_token") else warps(vocab)


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack and local memory, a thread."""
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        tool = triton.knobs.nvidia.cuobjdump.path
        told = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=False)
    found = _USAGE.search(told.stdout)
    if not found:
        raise CoolsdError("cuobjdump told no resource usage", found=(told.stderr or told.stdout).strip())
    registers, stack, _, local = (int(number) for number in found.groups())
    return registers, stack + local
