"""Judge every position of a window by itself: no rejection ends the window (SSD, arXiv 2606.20543).

Knows the law. Does not know how often a window is judged, nor when its tokens are committed. Legend as in
`coolsd_rt.ops.verify`.
"""

from __future__ import annotations

from coolsd_rt.arrays import Array
from coolsd_rt.law.acceptance import accepts
from coolsd_rt.law.arrays import namespace
from coolsd_rt.law.residual import residual
from coolsd_rt.ops.sample import sample
from coolsd_rt.ops.verify import check_drafted


def judge_positions(
    target: Array,
    draft: Array,
    tokens: Array,
    num_drafts: Array,
    u_accept: Array,
    u_resample: Array,
    forced: Array | None = None,
) -> tuple[Array, Array]:
    """Return the window's new tokens int64 [M, L], and bool [M]: rejections without a residual, drawn from P.

    A guess is kept with min(1, P / Q), else replaced by a draw from Norm([P - Q]_+). So a token has the law P of its
    position, given the guesses before it; those may be replaced too, which P did not see.

    target: P [M, L, V], after the guesses before each position.
    draft: Q [M, L, V], that the guesses were drawn from.
    tokens: int64 [M, L], the guesses.
    num_drafts: int64 [M], guesses that count; the others are returned as they are.
    u_accept, u_resample: [M, L], uniforms in [0, 1).
    forced: bool [M, L], positions whose token is fixed.

    Raises CoolsdError as `verify` does.
    """
    xp = namespace(target)
    images, length = tokens.shape
    rows, index = (xp.arange(n, dtype=xp.int64, device=num_drafts.device) for n in (images, length))
    at = (rows[:, None], index, tokens)
    p, q = xp.astype(target[at], xp.float64), xp.astype(draft[at], xp.float64)
    counts = index < num_drafts[:, None]
    check_drafted(p, q, counts)
    kept = accepts(xp.astype(u_accept, xp.float64), p, q, 1.0) | ~counts
    rejected = ~(kept if forced is None else kept | forced)
    degenerate = xp.zeros(rejected.shape, dtype=xp.bool, device=rejected.device)
    if not bool(xp.any(rejected)):
        return tokens, xp.any(degenerate, axis=1)
    weights, empty = residual(target[rejected], draft[rejected], 1.0, "residual")
    degenerate[rejected] = empty
    new = xp.asarray(tokens, copy=True)
    new[rejected] = sample(weights, u_resample[rejected])
    return new, xp.any(degenerate, axis=1)
