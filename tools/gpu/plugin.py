"""The kernels as plugins of full TensorRT, compiled ahead of time into the engine: verify and process_logits.

NOT RUN: this follows NVIDIA's documentation of `tensorrt.plugin` (quickly deployable plugins: `register`, `autotune`,
`aot_impl`). Only what it hands over was tested, PTX and launch parameters, with a stand-in for that module; TensorRT
for RTX has no such module. An engine loads without Python, and without this file.

Where a plugin differs from the torch operator of its name:
- TensorRT has no float64 tensors: omegas come as int64 with the float64's bits (`omegas.view(torch.int64)`).
- Inputs are not optional: `forced` of verify is all false where nothing is forced; there are no rates, and
  process_logits is the one with CFG and without forced tokens.
- Temperature, top_k, top_p and the resampler are attributes: constants of the PTX, a new engine for new ones.
- arch, the compute capability (90 for an H200), is an attribute too: PTX of Triton's is for one architecture.

Does not know networks: add a layer with `tensorrt.plugin.op.coolsd.verify(...)`.
"""

# No `from __future__ import annotations`: TensorRT reads the annotations as the types they are.
# mypy: disable-error-code="untyped-decorator"

import re
from collections.abc import Mapping
from typing import Any

from coolsd_rt.errors import CoolsdError, MissingExtra
from coolsd_rt.ops.gpu.shapes import power
from coolsd_rt.ops.logits import MIN_TEMPERATURE
from tools.gpu.offline_ops import Compiled, Kernel, compiled

# Inputs, then outputs, as TensorRT names types. They are what the kernels' signatures have, bits of float64 aside.
VERIFY_TYPES = "FP32, FP32, INT64, INT64, INT64, FP32, FP32, BOOL, INT64, INT64, BOOL, INT32"
PROCESS_TYPES = "FP32, FP32, FP32"

# CUDA 12.8's, the first that knows sm_120. The driver that loads an engine assembles it, and may be no newer.
PTX_VERSION = 87


def register() -> None:
    """Register the plugins with TensorRT, once in a process.

    Raises MissingExtra where TensorRT, its plugin module or triton is not installed (triton: when a network is built).
    """
    try:
        import tensorrt  # type: ignore[import-not-found, import-untyped, unused-ignore]
        import tensorrt.plugin  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ModuleNotFoundError:
        raise MissingExtra("tensorrt", "tensorrt", "the law inside a TensorRT engine") from None
    _register_verify(tensorrt)
    _register_process(tensorrt)


def _register_verify(trt: Any) -> None:
    import tensorrt.plugin as trtp  # type: ignore[import-not-found, import-untyped, unused-ignore]

    @trtp.register("coolsd::verify")
    def describe(
        target: trtp.TensorDesc,
        draft: trtp.TensorDesc,
        tokens: trtp.TensorDesc,
        num_drafts: trtp.TensorDesc,
        omega_bits: trtp.TensorDesc,
        u_accept: trtp.TensorDesc,
        u_resample: trtp.TensorDesc,
        forced: trtp.TensorDesc,
        resampler: str,
        vocab: int,
        longest: int,
        arch: int,
    ) -> tuple[trtp.TensorDesc, trtp.TensorDesc, trtp.TensorDesc, trtp.TensorDesc]:
        images = (num_drafts.shape_expr[0],)
        types = (trt.int64, trt.int64, trt.bool, trt.int32)
        accepted, token, degenerate, fault = (trtp.from_shape_expr(images, dtype=kind) for kind in types)
        return accepted, token, degenerate, fault

    @trtp.autotune("coolsd::verify")
    def types(
        target: trtp.TensorDesc,
        draft: trtp.TensorDesc,
        tokens: trtp.TensorDesc,
        num_drafts: trtp.TensorDesc,
        omega_bits: trtp.TensorDesc,
        u_accept: trtp.TensorDesc,
        u_resample: trtp.TensorDesc,
        forced: trtp.TensorDesc,
        outputs: tuple[trtp.TensorDesc, trtp.TensorDesc, trtp.TensorDesc, trtp.TensorDesc],
    ) -> list[trtp.AutoTuneCombination]:
        return [trtp.AutoTuneCombination(VERIFY_TYPES, "LINEAR")]

    @trtp.aot_impl("coolsd::verify")
    def build(
        target: trtp.TensorDesc,
        draft: trtp.TensorDesc,
        tokens: trtp.TensorDesc,
        num_drafts: trtp.TensorDesc,
        omega_bits: trtp.TensorDesc,
        u_accept: trtp.TensorDesc,
        u_resample: trtp.TensorDesc,
        forced: trtp.TensorDesc,
        resampler: str,
        vocab: int,
        longest: int,
        arch: int,
        outputs: tuple[trtp.TensorDesc, trtp.TensorDesc, trtp.TensorDesc, trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymExprs]:
        kernel = verify_kernel(arch, vocab, longest, resampler)
        return _launch(trtp, kernel, num_drafts.shape_expr[0], tokens.shape_expr[1])


def _register_process(trt: Any) -> None:
    import tensorrt.plugin as trtp  # type: ignore[import-not-found, import-untyped, unused-ignore]

    @trtp.register("coolsd::process_logits")
    def describe(
        logits: trtp.TensorDesc,
        scale: trtp.TensorDesc,
        temperature: float,
        top_k: int,
        top_p: float,
        vocab: int,
        arch: int,
    ) -> trtp.TensorDesc:
        shape = (scale.shape_expr[0], scale.shape_expr[1], logits.shape_expr[2])
        return trtp.from_shape_expr(shape, dtype=trt.float32)

    @trtp.autotune("coolsd::process_logits")
    def types(
        logits: trtp.TensorDesc, scale: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc]
    ) -> list[trtp.AutoTuneCombination]:
        return [trtp.AutoTuneCombination(PROCESS_TYPES, "LINEAR")]

    @trtp.aot_impl("coolsd::process_logits")
    def build(
        logits: trtp.TensorDesc,
        scale: trtp.TensorDesc,
        temperature: float,
        top_k: int,
        top_p: float,
        vocab: int,
        arch: int,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymExprs]:
        kernel = process_kernel(arch, vocab, temperature, top_k, top_p)
        return _launch(trtp, kernel, scale.shape_expr.numel())


def verify_kernel(arch: int, vocab: int, longest: int, resampler: str) -> Compiled:
    """`verify` for a plugin: its eight inputs, L, its four outputs. longest: the greatest L of the profiles."""
    return _plain("verify", arch, vocab, {"rates": None, "KIND": resampler, "LB": power(max(longest, 1))})


def process_kernel(arch: int, vocab: int, temperature: float, top_k: int, top_p: float) -> Compiled:
    """`process_logits` for a plugin: logits float32 and scale, then the probabilities; the settings are constants."""
    settings = {"temperature": max(temperature, MIN_TEMPERATURE), "top_k": top_k, "top_p": top_p}
    return _plain("process_logits", arch, vocab, {"forced": None, "u": None, "tokens": None, **settings})


def without_scratch(ptx: str) -> str:
    """PTX without the two pointers, scratch memory, that triton appends to each entry point and gives at launch.

    TensorRT gives the arguments it knows of and no more. Raises CoolsdError where the code refers to one of the two.
    """
    names = re.findall(r"^\s*\.param [^\n]*?(\w+_param_\d+),?$", ptx, re.MULTILINE)
    for name in names[-2:]:
        if len(re.findall(rf"\b{name}\b", ptx)) != 1:
            raise CoolsdError("a kernel for TensorRT", expected="no scratch memory", found=f"{name} in use")
    last, first = re.escape(names[-3]), re.escape(names[-2])
    return re.sub(rf"(\b{last}),(\n[^\n]*\b{first},\n[^\n]*)$", r"\1", ptx, count=1, flags=re.MULTILINE)


def _plain(kernel: Kernel, arch: int, vocab: int, constants: Mapping[str, Any]) -> Compiled:
    made = compiled(kernel, arch, vocab, constants, ptx_version=PTX_VERSION)
    return Compiled(**{**vars(made), "ptx": without_scratch(made.ptx)})


def _launch(trtp: Any, kernel: Compiled, programs: Any, *scalars: Any) -> tuple[str, str, Any, Any]:
    """What `aot_impl` returns: one block a program; the scalars are int32 and follow the inputs."""
    launch = trtp.KernelLaunchParams()
    launch.grid_x = programs
    launch.block_x = kernel.warps * 32
    launch.shared_mem = kernel.shared
    extra = trtp.SymIntExprs(len(scalars))
    for i, scalar in enumerate(scalars):
        extra[i] = trtp.SymInt32(scalar)
    return kernel.name, kernel.ptx, launch, extra
