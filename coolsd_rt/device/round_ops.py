"""The torch operators coolsd::window, draft_token and commit: a round's bookkeeping, one launch each.

As in `ops.gpu.ops`, CUDA tensors go to the Triton kernels, CPU tensors to `round_reference`, or through the kernels in
Triton's interpreter. All results are written into given tensors, so addresses stay the same; for an operator that
returns nothing, torch supplies the fake implementation. No operator waits for the device. Knows the order of a
position's uniforms: draft, accept, resample. Does not know models.

Legend: M images, R rows (2M under CFG: image m is rows m and M + m), W prefix length, N image tokens, L draft length, V
codes. Positions count the prefix. "out" is written, "in, out" is read too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coolsd_rt.device import round_reference as reference
from coolsd_rt.errors import CoolsdError
from coolsd_rt.ops.gpu.launch import by_kernel, launch, require_all, require_logits, require_out
from coolsd_rt.ops.gpu.shapes import block, power, process_warps, warps
from coolsd_rt.ops.logits import MIN_TEMPERATURE


def kernel_named(name: str) -> Any:
    """Return a kernel of the round by name. Raises ModuleNotFoundError without triton."""
    from coolsd_rt.device import round_kernels

    return getattr(round_kernels, name)


_WINDOW_OUT = (
    "num_drafts",
    "u_draft",
    "u_accept",
    "u_resample",
    "scale",
    "forced",
    "is_forced",
    "first",
    "ids",
    "pos",
    "last",
)
_DRAFT_OUT = ("num_drafts", "peaks", "q", "drafts", "ids", "token")
_COMMIT_OUT = (
    "codes", "committed", "num_pending", "draft_allowed", "rounds", "histogram", "attempts", "accepts", "degenerate",
    "proposed", "fault",
)  # fmt: skip


@torch.library.custom_op("coolsd::window", mutates_args=_WINDOW_OUT, device_types=("cpu", "cuda"))
def window(
    codes: Tensor,
    committed: Tensor,
    num_pending: Tensor,
    draft_allowed: Tensor,
    uniforms: Tensor,
    scales: Tensor | None,
    fixed: Tensor | None,
    prefix: int,
    shift: int,
    num_drafts: Tensor,
    u_draft: Tensor,
    u_accept: Tensor,
    u_resample: Tensor,
    scale: Tensor | None,
    forced: Tensor | None,
    is_forced: Tensor | None,
    first: Tensor,
    ids: Tensor,
    pos: Tensor,
    last: Tensor,
) -> None:
    """Prepare the coming round: uniforms, limits and positions. Window index i counts from the first undecided token.

    codes: int64 [M, N]. committed, num_pending: int64 [M], positions decided, and how many of these the draft has yet
    to process, 1..L + 1. draft_allowed: bool [M], whether the round may draft. uniforms: float32 [M, N, L + 1, 3].
    scales: float32 [N], R = 2M; None: no CFG, R = M. fixed: int64 [N], -1: free; None: all are. prefix: W. shift: how
    far a row of the draft lies before the token that it processes.

    out: num_drafts int64 [M], drafts that count. u_draft, u_accept: float32 [M, L]. u_resample: float32 [M, L + 1].
    scale: float32 [M, L + 1], with scales. forced: int64 [M, L + 1] and is_forced: bool [M, L], with fixed. first:
    int64 [R, L + 1], ids of the draft's first step; `last` int64 [R] is the index of the last pending one. ids: int64
    [R, L + 1] of the target's step, column 0. pos: int64 [L + 1, R], positions of the draft's L steps, then the
    target's. Raises CoolsdError on shapes or dtypes that do not fit.
    """
    (images, tokens), width = codes.shape, uniforms.shape[2]
    length, rows = width - 1, images * (1 if scales is None else 2)
    one, many, wide, step = (images,), (images, length), (images, width), (rows, width)
    _together("scale", scales, scale)
    _together("forced", fixed, forced, is_forced)
    require_all((images, tokens), torch.int64, codes=codes)
    require_all(one, torch.int64, committed=committed, num_pending=num_pending)
    require_all(one, torch.bool, draft_allowed=draft_allowed)
    require_all((images, tokens, width, 3), torch.float32, uniforms=uniforms)
    require_all((tokens,), torch.float32, scales=scales)
    require_all((tokens,), torch.int64, fixed=fixed)
    require_out(one, torch.int64, num_drafts=num_drafts)
    require_out(many, torch.float32, u_draft=u_draft, u_accept=u_accept)
    require_out(wide, torch.float32, u_resample=u_resample, scale=scale)
    require_out(wide, torch.int64, forced=forced)
    require_out(many, torch.bool, is_forced=is_forced)
    require_out(step, torch.int64, first=first, ids=ids)
    require_out((width, rows), torch.int64, pos=pos)
    require_out((rows,), torch.int64, last=last)
    inputs = (codes, committed, num_pending, draft_allowed, uniforms, scales, fixed)
    outputs = (num_drafts, u_draft, u_accept, u_resample, scale, forced, is_forced, first, ids, pos, last)
    if not by_kernel(codes):
        drawn = (u_draft, u_accept, u_resample)
        reference.window(*inputs, prefix, shift, num_drafts, *drawn, scale, forced, is_forced, first, ids, pos, last)
        return
    launch(kernel_named, "window", images, 1, *inputs, tokens, length, prefix, shift, *outputs, LB=power(width))


@torch.library.custom_op("coolsd::draft_token", mutates_args=_DRAFT_OUT, device_types=("cpu", "cuda"))
def draft_token(
    logits: Tensor,
    last: Tensor | None,
    u: Tensor,
    scale: Tensor | None,
    forced: Tensor | None,
    i: int,
    temperature: float,
    top_k: int,
    top_p: float,
    least: float,
    num_drafts: Tensor,
    peaks: Tensor | None,
    q: Tensor,
    drafts: Tensor,
    ids: Tensor,
    token: Tensor,
) -> None:
    """Draw draft i of each image from its Q, and write both to the tensors that later steps read.

    logits: [R, S, V] as in `draft_sample`; position `last` int64 [R] is used, or position 0. u, scale, forced: as
    `window` writes them. temperature, top_k, top_p: as in `draft_sample`.

    out: q float32 [M, L, V] and drafts int64 [M, L], entry i. ids: int64 [R, L + 1], column i + 1. token: int64 [R, 1],
    the ids of the next step. peaks: float32 [M, L] or None, the largest probability of each Q. With peaks, the last
    draft also updates num_drafts (in, out, int64 [M]): it ends before the first Q whose peak is below `least`, unless a
    Q that could count is NaN.

    On a GPU the token of a NaN row is 0; on a CPU the reference raises. Raises CoolsdError on shapes or dtypes that do
    not fit.
    """
    (images, length), width = u.shape, u.shape[1] + 1
    rows, positions, vocab = images * (1 if scale is None else 2), logits.shape[1], logits.shape[2]
    many, wide = (images, length), (images, width)
    require_logits(logits, (rows, positions, vocab))
    require_all((rows,), torch.int64, last=last)
    require_all(many, torch.float32, u=u)
    require_all(wide, torch.float32, scale=scale)
    require_all(wide, torch.int64, forced=forced)
    require_out((images,), torch.int64, num_drafts=num_drafts)
    require_out(many, torch.float32, peaks=peaks)
    require_out((images, length, vocab), torch.float32, q=q)
    require_out(many, torch.int64, drafts=drafts)
    require_out((rows, width), torch.int64, ids=ids)
    require_out((rows, 1), torch.int64, token=token)
    inputs = (logits, last, u, scale, forced)
    outputs = (num_drafts, peaks, q, drafts, ids, token)
    if not by_kernel(logits):
        numbers = (i, temperature, top_k, top_p, least)
        reference.draft_token(*inputs, *numbers, num_drafts, peaks, q, drafts, ids, token)
        return
    scalars = (max(temperature, MIN_TEMPERATURE), top_k, top_p, least, positions, length, i)
    constants = {"LB": power(width), **block(vocab)}
    launch(kernel_named, "draft_token", images, process_warps(vocab), *inputs, *scalars, *outputs, **constants)


@torch.library.custom_op("coolsd::commit", mutates_args=_COMMIT_OUT, device_types=("cpu", "cuda"))
def commit(
    accepted: Tensor,
    token: Tensor,
    empty: Tensor,
    broken: Tensor,
    num_drafts: Tensor,
    drafts: Tensor,
    p: Tensor | None,
    least: float,
    prefix: int,
    codes: Tensor,
    committed: Tensor,
    num_pending: Tensor,
    draft_allowed: Tensor,
    rounds: Tensor,
    histogram: Tensor,
    attempts: Tensor,
    accepts: Tensor,
    degenerate: Tensor,
    proposed: Tensor,
    fault: Tensor,
) -> None:
    """Commit the first `accepted` drafts and the token of each unfinished image, and count.

    Rejected drafts need no rollback: no counter advances past them. accepted, token, empty (its degenerate), broken
    (its fault): the results of `verify`. num_drafts int64 [M], drafts int64 [M, L]. p: float32 [M, L + 1, V], P; the
    next round may draft only if its row `accepted` has a probability of at least `least`. None: it always may. prefix:
    W.

    in, out: codes int64 [M, N]; committed, num_pending, rounds int64 [M]; draft_allowed bool [M], of finished images
    too; histogram int64 [L + 1]; attempts, accepts int64 [L]; degenerate int64 [1]; proposed int64 [1], the drafts that
    counted; fault int32 [M].

    Raises CoolsdError on shapes or dtypes that do not fit.
    """
    (images, length), tokens = drafts.shape, codes.shape[1]
    vocab = 1 if p is None else p.shape[-1]
    one = (images,)
    require_all(one, torch.int64, accepted=accepted, token=token, num_drafts=num_drafts)
    require_all(one, torch.bool, empty=empty)
    require_all(one, torch.int32, broken=broken)
    require_all((images, length), torch.int64, drafts=drafts)
    require_all((images, length + 1, vocab), torch.float32, p=p)
    require_out((images, tokens), torch.int64, codes=codes)
    require_out(one, torch.int64, committed=committed, num_pending=num_pending, rounds=rounds)
    require_out(one, torch.bool, draft_allowed=draft_allowed)
    require_out((length + 1,), torch.int64, histogram=histogram)
    require_out((length,), torch.int64, attempts=attempts, accepts=accepts)
    require_out((1,), torch.int64, degenerate=degenerate, proposed=proposed)
    require_out(one, torch.int32, fault=fault)
    inputs = (accepted, token, empty, broken, num_drafts, drafts, p)
    outputs = (
        codes,
        committed,
        num_pending,
        draft_allowed,
        rounds,
        histogram,
        attempts,
        accepts,
        degenerate,
        proposed,
        fault,
    )
    if not by_kernel(codes):
        reference.commit(*inputs, least, prefix, *outputs)
        return
    constants = {"LB": power(length + 1), **block(vocab)}
    many = 1 if p is None else warps(vocab)
    launch(kernel_named, "commit", images, many, *inputs, least, tokens, length, prefix, *outputs, **constants)


def _together(name: str, given: Tensor | None, *outputs: Tensor | None) -> None:
    if any((given is None) != (out is None) for out in outputs):
        expected = "nowhere to write it" if given is None else "where to write it"
        raise CoolsdError(f"the window's {name}", expected=expected, found="the other")
