"""The torch operators coolsd::process_logits, draft_sample, sample and verify.

CUDA tensors go to the Triton kernels, CPU tensors to the eager reference, or through the kernels in Triton's
interpreter where the variable TRITON_INTERPRET is 1 (set it before triton is imported). The fake implementations know
shapes only, so torch.compile and torch.export see through the operators. No operator waits for the device: where the
reference raises, a kernel sets `fault`. Does not know models, caches or where uniforms come from.

Legend: M images, R rows (2M under CFG: all conditional rows first), S positions, L draft length, V codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coolsd_rt import ops as reference
from coolsd_rt.errors import CoolsdError
from coolsd_rt.law.residual import DEVICE_RESAMPLERS
from coolsd_rt.ops.gpu.launch import by_kernel, kernel_named, launch, require, require_logits
from coolsd_rt.ops.gpu.shapes import block, power, process_warps, warps
from coolsd_rt.ops.logits import MIN_TEMPERATURE


@torch.library.custom_op("coolsd::process_logits", mutates_args=(), device_types=("cpu", "cuda"))
def process_logits(
    logits: Tensor, scale: Tensor | None, temperature: float, top_k: int, top_p: float, forced: Tensor | None = None
) -> Tensor:
    """Return distributions float32 [M, S, V]: CFG, temperature, top-k, softmax, top-p.

    logits: float32, float16 or bfloat16 [R, S, V].
    scale: float32 [M, S], R = 2M; None: no CFG, R = M.
    temperature, top_k, top_p: as in `coolsd_rt.ops.process_logits`.
    forced: int64 [M, S]; an id makes its row an exact point mass, whatever the logits hold; -1: free.

    A row with a logit that is not finite, or with a forced id >= V, is NaN throughout.

    Raises CoolsdError on shapes or dtypes that do not fit. Source: `coolsd_rt.ops.process_logits`.
    """
    probs, _ = _processed(logits, scale, None, temperature, top_k, top_p, forced)
    return probs


@torch.library.custom_op("coolsd::draft_sample", mutates_args=(), device_types=("cpu", "cuda"))
def draft_sample(
    logits: Tensor,
    scale: Tensor | None,
    u: Tensor,
    temperature: float,
    top_k: int,
    top_p: float,
    forced: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw tokens int64 [M, S], and return them with the distributions float32 [M, S, V] they were drawn from.

    One launch. u: float32 [M, S], uniforms in [0, 1). The other arguments are those of `process_logits`. On a GPU the
    token of a NaN row is 0, and `verify` finds the NaN in Q; on a CPU the reference raises at once.

    Raises CoolsdError on shapes or dtypes that do not fit. Source: `coolsd_rt.ops.sample`.
    """
    probs, tokens = _processed(logits, scale, u, temperature, top_k, top_p, forced)
    return tokens, probs


@torch.library.custom_op("coolsd::sample", mutates_args=(), device_types=("cpu", "cuda"))
def sample(weights: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Draw tokens int64 [M, S] from weights float32 [M, S, V] at uniforms u float32 [M, S].

    Returns the tokens and fault, int32 [M, S]. If a total is not finite and positive, fault is FAULT_TOTAL and the
    token is meaningless (on a CPU the reference raises). Raises CoolsdError on shapes or dtypes that do not fit.
    Source: `coolsd_rt.ops.sample`.
    """
    images, positions, vocab = weights.shape
    require("weights", weights, (images, positions, vocab), torch.float32)
    require("u", u, (images, positions), torch.float32)
    if not by_kernel(weights):
        return reference.sample(weights, u), weights.new_zeros(u.shape, dtype=torch.int32)
    tokens = torch.empty_like(u, dtype=torch.int64, memory_format=torch.contiguous_format)
    fault = torch.empty_like(tokens, dtype=torch.int32)
    launch(kernel_named, "sample", u.numel(), warps(vocab), weights, u, tokens, fault, **block(vocab))
    return tokens, fault


@torch.library.custom_op("coolsd::verify", mutates_args=(), device_types=("cpu", "cuda"))
def verify(
    target: Tensor,
    draft: Tensor,
    tokens: Tensor,
    num_drafts: Tensor,
    omegas: Tensor,
    u_accept: Tensor,
    u_resample: Tensor,
    forced: Tensor | None,
    rates: Tensor | None,
    resampler: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Verify drafts in one launch: accepted int64 [M], token int64 [M], degenerate bool [M], fault int32 [M].

    target: P float32 [M, L+1, V].
    draft: Q float32 [M, L, V], the same tensor that the tokens were drawn from.
    tokens: int64 [M, L].
    num_drafts: int64 [M], 0..L.
    omegas: float64 [L].
    u_accept, u_resample: float32 [M, L] and [M, L+1].
    forced: bool [M, L] or None.
    rates: float64 [L] or None.
    resampler: one of DEVICE_RESAMPLERS. L may be 0.

    Does not wait for the device. The results are those of `coolsd_rt.ops.verify`. Where that raises, this sets a bit of
    fault, which `raise_fault` raises; the other results of such a row are meaningless, but its token is a valid code.
    On a CPU the reference raises and fault is 0.

    Raises CoolsdError on shapes, dtypes or a resampler that do not fit. Source: arXiv 2601.09212.
    """
    images, length = tokens.shape
    vocab = target.shape[-1]
    if resampler not in DEVICE_RESAMPLERS:
        raise CoolsdError("the resampler on a GPU", expected=" or ".join(DEVICE_RESAMPLERS), found=resampler)
    for name, tensor, shape, dtype in (
        ("target", target, (images, length + 1, vocab), torch.float32),
        ("draft", draft, (images, length, vocab), torch.float32),
        ("tokens", tokens, (images, length), torch.int64),
        ("num_drafts", num_drafts, (images,), torch.int64),
        ("omegas", omegas, (length,), torch.float64),
        ("u_accept", u_accept, (images, length), torch.float32),
        ("u_resample", u_resample, (images, length + 1), torch.float32),
        ("forced", forced, (images, length), torch.bool),
        ("rates", rates, (length,), torch.float64),
    ):
        require(name, tensor, shape, dtype)
    outputs = _verdict(tokens)
    inputs = (target, draft, tokens, num_drafts, omegas, u_accept, u_resample)
    if by_kernel(target):
        constants = {"KIND": resampler, "LB": power(max(length, 1)), **block(vocab)}
        launch(kernel_named, "verify", images, warps(vocab), *inputs, forced, rates, length, *outputs, **constants)
        return outputs
    told = reference.verify(*inputs, resampler, forced=forced, rates=rates)
    for out, value in zip(outputs, told, strict=False):
        out.copy_(value)
    outputs[-1].zero_()
    return outputs


@process_logits.register_fake
def _(
    logits: Tensor, scale: Tensor | None, temperature: float, top_k: int, top_p: float, forced: Tensor | None = None
) -> Tensor:
    return _empty_probs(logits, scale)


@draft_sample.register_fake
def _(
    logits: Tensor,
    scale: Tensor | None,
    u: Tensor,
    temperature: float,
    top_k: int,
    top_p: float,
    forced: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    probs = _empty_probs(logits, scale)
    return probs.new_empty(probs.shape[:2], dtype=torch.int64), probs


@sample.register_fake
def _(weights: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape, dtype=torch.int64), u.new_empty(u.shape, dtype=torch.int32)


@verify.register_fake
def _(
    target: Tensor,
    draft: Tensor,
    tokens: Tensor,
    num_drafts: Tensor,
    omegas: Tensor,
    u_accept: Tensor,
    u_resample: Tensor,
    forced: Tensor | None,
    rates: Tensor | None,
    resampler: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _verdict(tokens)


def _verdict(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtypes = (torch.int64, torch.int64, torch.bool, torch.int32)
    accepted, token, degenerate, fault = (tokens.new_empty(tokens.shape[:1], dtype=dtype) for dtype in dtypes)
    return accepted, token, degenerate, fault


def _empty_probs(logits: Tensor, scale: Tensor | None) -> Tensor:
    rows, positions, vocab = logits.shape
    return logits.new_empty((rows if scale is None else rows // 2, positions, vocab), dtype=torch.float32)


def _processed(
    logits: Tensor,
    scale: Tensor | None,
    u: Tensor | None,
    temperature: float,
    top_k: int,
    top_p: float,
    forced: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the probabilities and, if u is given, the tokens (else an empty tensor)."""
    probs = _empty_probs(logits, scale)
    images, positions, vocab = probs.shape
    require_logits(logits, (images if scale is None else 2 * images, positions, vocab))
    for name, tensor, dtype in (
        ("scale", scale, torch.float32),
        ("u", u, torch.float32),
        ("forced", forced, torch.int64),
    ):
        require(name, tensor, (images, positions), dtype)
    if not by_kernel(logits):
        probs = _reference_probs(logits, scale, temperature, top_k, top_p, forced)
        return probs, probs.new_empty(0, dtype=torch.int64) if u is None else reference.sample(probs, u)
    tokens = probs.new_empty((0,) if u is None else (images, positions), dtype=torch.int64)
    temperature = max(temperature, MIN_TEMPERATURE)
    inputs = (logits, scale, forced, u, temperature, top_k, top_p)
    launch(
        kernel_named, "process_logits", images * positions, process_warps(vocab), *inputs, probs, tokens, **block(vocab)
    )
    return probs, tokens


def _reference_probs(
    logits: Tensor, scale: Tensor | None, temperature: float, top_k: int, top_p: float, forced: Tensor | None
) -> Tensor:
    probs: Tensor = reference.process_logits(logits, scale, temperature, top_k, top_p)
    broken = ~torch.isfinite(logits).all(dim=-1, keepdim=True)
    if scale is not None:
        broken = broken[: len(probs)] | broken[len(probs) :]
    probs = probs.masked_fill(broken, torch.nan)
    if forced is not None:
        ids = forced[..., None]
        point = (torch.arange(probs.shape[-1], device=probs.device) == ids).to(probs.dtype)
        probs = torch.where(ids < 0, probs, point.masked_fill(ids >= probs.shape[-1], torch.nan))
    return probs
