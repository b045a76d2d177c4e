"""Static trees of drafts: draw the siblings below nodes, and verify a tree.

At each node the siblings are judged in draw order (`coolsd_rt.law.siblings`); the first that is accepted is the token,
and the round goes on below it. Processes all rows at once, depth by depth. Knows the law. Does not know models, caches,
attention masks or positions in an image.

Legend: M images, V codes, D depth of the tree, K nodes, l levels of a round (l <= D), K' their nodes. Nodes are
numbered breadth first from 0. Step position 0 is the root, the token before all drafts, and node i is at step position
i + 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from coolsd_rt.arrays import Array
from coolsd_rt.law.arrays import namespace
from coolsd_rt.law.siblings import NO_TOKEN, judge_siblings
from coolsd_rt.ops.sample import sample
from coolsd_rt.ops.verify import check_drafted


class TreeVerdict(NamedTuple):
    """The outcome of a round for each image."""

    accepted: Array  # int64 [M]: drafts accepted, 0..num_drafts
    token: Array  # int64 [M]: the token after them
    degenerate: Array  # bool [M]: a residual on the way had no mass, and P stood in for it
    path: Array  # int64 [M, l]: the accepted node of each depth; after them, the first below the one before


def draw_siblings(q: Array, u: Array) -> Array:
    """Draw siblings without replacement: int64 [M, n, w] from Q [M, n, V] with uniforms u [M, n, w].

    Each is drawn by inverse CDF from what the draws before it left of Q. `NO_TOKEN` where nothing is left. Raises
    CoolsdError if a Q is no distribution.
    """
    xp = namespace(q)
    codes = xp.arange(q.shape[-1], dtype=xp.int64, device=q.device)
    drawn = [sample(q, u[..., 0])]
    for j in range(1, u.shape[-1]):
        q = xp.where(codes == drawn[-1][..., None], xp.zeros_like(q), q)
        is_left = xp.any(q > 0, axis=-1)
        token = sample(xp.where(is_left[..., None], q, xp.ones_like(q)), u[..., j])
        drawn.append(xp.where(is_left, token, NO_TOKEN))
    return xp.stack(drawn, axis=-1)


def verify_tree(
    target: Array,
    draft: Array,
    tokens: Array,
    num_drafts: Array,
    omegas: Array,
    u_accept: Array,
    u_resample: Array,
    widths: Sequence[int],
    forced: Array | None = None,
) -> TreeVerdict:
    """Walk down from the root to the first node whose siblings are all rejected, and draw the token after it.

    target: P [M, K' + 1, V] after each step position.
    draft: Q [M, n, V] after the step positions that have drafts below them, the tensor that those were drawn from.
    tokens: int64 [M, K'] of the nodes; `NO_TOKEN` where there is none.
    num_drafts: int64 [M], the depth down to which drafts count, at most l.
    omegas: float64 [M, l], of each depth.
    u_accept: uniforms [M, K'] of the nodes.
    u_resample: uniforms [M, K + 1]. The token takes the number of the first node that stands, or in a deeper round
    would stand, in its place; below the deepest leaves that of index K.
    widths: of the whole tree, D numbers.
    forced: bool [M, l], depths whose token is fixed: accepted whatever omega is.

    Raises CoolsdError on NaN, or if a token that is judged has Q = 0.
    """
    xp, levels = namespace(target), omegas.shape[1]
    images = tokens.shape[0]
    starts = list(itertools.accumulate(itertools.accumulate(widths, lambda nodes, w: nodes * w), initial=0))
    rows = xp.arange(images, dtype=xp.int64, device=tokens.device)
    rank = xp.zeros_like(rows)  # of the node that the walk has come to, among those of its depth
    at, resample_at, accepted = xp.zeros_like(rows), xp.zeros_like(rows), xp.zeros_like(rows)
    weights, degenerate, path = target[:, 0], rows < 0, []
    for level, width in enumerate(widths[:levels]):
        first = starts[level] + rank * width
        siblings = first[:, None] + xp.arange(width, dtype=xp.int64, device=tokens.device)
        judged = (accepted == level) & (level < num_drafts)
        below = xp.where(judged[:, None], tokens[rows[:, None], siblings], NO_TOKEN)
        p, q = target[rows, at], draft[rows, at]
        _check(p, q, below)
        pinned = None if forced is None else forced[:, level]
        found = judge_siblings(p, q, omegas[:, level], below, u_accept[rows[:, None], siblings], pinned)
        kept = judged & (found.kept < width)
        rank = rank * width + xp.where(kept, found.kept, 0)
        node = starts[level] + rank
        path.append(node)
        at = node + 1
        accepted = accepted + xp.astype(kept, xp.int64)
        degenerate = degenerate | found.degenerate
        weights = xp.where(judged[:, None], xp.where(kept[:, None], target[rows, at], found.left), weights)
        deeper = starts[level + 1] + rank * (widths[level + 1] if level + 1 < len(widths) else 0)
        resample_at = xp.where(kept, deeper, resample_at)
    token = sample(weights, u_resample[rows, resample_at])
    return TreeVerdict(accepted, token, degenerate, xp.stack(path, axis=1))


def _check(p: Array, q: Array, tokens: Array) -> None:
    """Raise CoolsdError unless P >= 0 and Q > 0 at the tokens int64 [M, w] that are there; P and Q [M, V]."""
    xp = namespace(p)
    there = tokens != NO_TOKEN
    rows = xp.arange(tokens.shape[0], dtype=xp.int64, device=tokens.device)[:, None]
    at = (rows, xp.where(there, tokens, 0))
    check_drafted(p[at], q[at], there)
