"""The eager reference of a round's operators in torch: the same tensors, written in place.

Knows counters, tokens and random numbers of a round. Does not know kernels, nor who calls. Arguments, shapes and dtypes
are those of `round_ops`, which checks them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coolsd_rt.ops.gpu.ops import draft_sample


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
    """Prepare the coming round: uniforms, limits and positions of its steps."""
    (images, tokens), length = codes.shape, u_draft.shape[1]
    offsets = torch.arange(length + 1, device=codes.device)
    num_drafts.copy_(torch.where(draft_allowed, (prefix + tokens - committed - 1).clamp(0, length), 0))
    at = ((committed - prefix)[:, None] + offsets).clamp(max=tokens - 1)  # a finished image is computed too
    drawn = uniforms[torch.arange(images, device=codes.device)[:, None], at, offsets]
    u_draft.copy_(drawn[:, :length, 0])
    u_accept.copy_(drawn[:, :length, 1])
    u_resample.copy_(drawn[..., 2])
    if scales is not None and scale is not None:
        scale.copy_(scales[at])
    if fixed is not None and forced is not None and is_forced is not None:
        forced.copy_(fixed[at])
        is_forced.copy_(forced[:, :length] >= 0)

    def both(x: Tensor) -> Tensor:
        return torch.cat([x, x]) if scales is not None else x

    # The draft's first step processes the pending tokens; its next steps overwrite the cache rows after these.
    behind = committed - num_pending
    first.copy_(both(codes.gather(1, ((behind - prefix)[:, None] + offsets).clamp(max=tokens - 1))))
    last.copy_(both(num_pending - 1))
    ids[:, 0] = both(codes.gather(1, (committed - prefix - 1)[:, None])[:, 0])
    pos[0] = both(behind - shift)
    for i in range(1, length):
        pos[i] = both(committed + (i - 1 - shift))
    pos[length] = both(committed - 1)


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
    """Draw draft i from its Q and write both; after the last draft, cut the window."""
    rows = torch.arange(len(logits), device=logits.device)
    row = logits[:, :1] if last is None else logits[rows, last][:, None]
    one = slice(i, i + 1)
    drawn, probs = draft_sample(
        row,
        None if scale is None else scale[:, one],
        u[:, one],
        temperature,
        top_k,
        top_p,
        None if forced is None else forced[:, one],
    )
    q[:, one] = probs
    drafts[:, one] = drawn
    token.copy_(torch.cat([drawn, drawn]) if scale is not None else drawn)
    ids[:, i + 1 : i + 2] = token
    if peaks is None:
        return
    peaks[:, i] = probs[:, 0].amax(-1)
    if i == q.shape[1] - 1:
        confident = (peaks >= least).to(torch.int64)
        # `verify` has to find a NaN: with one among the drafts that could count, none is cut.
        broken = peaks.isnan() & (torch.arange(len(peaks[0]), device=q.device) < num_drafts[:, None])
        num_drafts.copy_(torch.where(broken.any(1), num_drafts, torch.minimum(num_drafts, confident.cumprod(1).sum(1))))


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
    """Commit tokens, counters and faults of each unfinished image."""
    active = committed < prefix + codes.shape[1]
    one = active.to(torch.int64)
    rounds.add_(one)
    histogram.scatter_add_(0, accepted, one)
    at = torch.arange(drafts.shape[1], device=drafts.device)
    accepts.add_(((at < accepted[:, None]) * one[:, None]).sum(0))
    evaluated = torch.minimum(accepted + 1, num_drafts)
    attempts.add_(((at < evaluated[:, None]) * one[:, None]).sum(0))
    degenerate.add_((empty * one).sum())
    proposed.add_((num_drafts * one).sum())
    fault.bitwise_or_(torch.where(active, broken, 0))

    at = torch.arange(drafts.shape[1] + 1, device=drafts.device)
    decided = torch.cat([drafts, drafts.new_zeros(len(drafts), 1)], dim=1)
    decided = torch.where(at == accepted[:, None], token[:, None], decided)
    image, i = ((at <= accepted[:, None]) & active[:, None]).nonzero(as_tuple=True)
    codes[image, (committed - prefix)[image] + i] = decided[image, i]
    grown = torch.where(active, accepted + 1, 0)
    committed.add_(grown)
    num_pending.copy_(torch.where(active, grown, num_pending))
    if p is None:
        draft_allowed.fill_(True)
    else:
        draft_allowed.copy_(p[torch.arange(len(p), device=p.device), accepted].amax(-1) >= least)
