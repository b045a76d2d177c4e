"""Rounds whose drafts are a tree: steps 2 to 4 of `coolsd_rt.runtime.round`, and what a tree can be combined with.

Knows sessions, the law's operations and the drafter. Does not know when a round is due, nor what is committed. A tree
is told as the chain of its accepted nodes, so that the rest of the round is the same for both: drafts, P and Q along
the path, and the target's cache as a chain would have left it. Legend as in `coolsd_rt.runtime.round`, and K nodes of a
tree, of which the levels of a round have K'.
"""

from __future__ import annotations

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.errors import UserError
from coolsd_rt.law.arrays import namespace
from coolsd_rt.ops.tree import verify_tree
from coolsd_rt.runtime.batch import Batch, Judged, Window, to_host
from coolsd_rt.runtime.drafters.tree import TreeDrafter
from coolsd_rt.runtime.interface import Session, TreeSession
from coolsd_rt.runtime.randomness import ACCEPT, RESAMPLE
from coolsd_rt.runtime.self_decoding import DecodeRequest
from coolsd_rt.runtime.trees import TreeShape


def check_tree(request: DecodeRequest, session: Session) -> TreeSession:
    """Return the session of a request with a tree. Raises UserError if the two cannot be combined."""
    tree, law = request.tree, request.law
    assert tree is not None
    if law.rule != "ratio" or law.resampler != "optimal":
        expected, found = "the rule ratio with the resampler optimal", f"{law.rule} with {law.resampler}"
        raise UserError("the law of drafts in a tree", expected=expected, found=found)
    if law.length != tree.depth:
        raise UserError("the omegas of a tree", expected=f"{tree.depth}, one a depth", found=str(law.length))
    if max(tree.widths) > session.dims.vocab:
        expected = f"at most {session.dims.vocab}, as many as there are codes"
        raise UserError("the siblings of a tree", expected=expected, found=str(max(tree.widths)))
    if request.uniforms.shape[2] != tree.nodes + 1:
        expected = f"numbers for {tree.nodes} nodes"
        raise UserError("the random numbers of a tree", expected=expected, found=str(request.uniforms.shape[2] - 1))
    if request.drafter != "eagle":
        raise UserError("the drafter of a tree", expected="eagle", found=request.drafter)
    if request.sampling.draft_confidence > 0:
        expected, found = "0: a tree has one depth for all its nodes", f"{request.sampling.draft_confidence:g}"
        fix = "use confidence, which ends no tree half way, or no tree"
        raise UserError("draft_confidence with a tree", expected=expected, found=found, fix=fix)
    if not isinstance(session, TreeSession):
        expected, fix = "an engine whose steps take trees", "use an engine that was built for trees, or no tree"
        raise UserError("drafts in a tree", expected=expected, found=type(session).__name__, fix=fix)
    return session


class TreeJudge:
    """Drafts trees and verifies them."""

    def __init__(self, session: TreeSession, batch: Batch, shape: TreeShape) -> None:
        self._session, self._batch, self._shape = session, batch, shape
        self.drafter = TreeDrafter(batch, session, shape)

    def judge(self, window: Window, num_drafts: Ints, pending: Array, omegas: Array) -> Judged:
        """Run a round up to its commit.

        num_drafts: [M], the depth down to which each image may draft, at least one of them above 0. pending: int64 [M,
        1]. omegas: float64 [M, D].
        """
        batch, levels = self._batch, int(num_drafts.max())
        xp, shape = namespace(pending), self._shape.top(levels)
        tokens, q = self.drafter.draft_tree(window, levels)
        logits, features = self._step(xp.concat([pending, xp.where(tokens < 0, 0, tokens)], axis=1), shape)
        at = window.at[:, shape.depths]
        p = batch.distribution(logits, batch.scale(at), at)
        verdict = verify_tree(
            p,
            q,
            tokens,
            batch.put(num_drafts),
            omegas[:, :levels],
            batch.put(window.uniforms[..., ACCEPT]),
            batch.put(window.uniforms[..., RESAMPLE]),
            self._shape.widths,
            batch.forced_mask(window.at[:, :levels]),
        )
        path = to_host(verdict.path)
        self._settle(path, to_host(verdict.accepted), features)
        rows, nodes = batch.put(batch.rows)[:, None], verdict.path
        along = batch.put(_steps(path))
        return Judged(num_drafts, tokens[rows, nodes], p[rows, along], q[rows, along[:, :-1]], *verdict[:3])

    def _step(self, ids: Array, shape: TreeShape) -> tuple[Array, Array]:
        """Run the target over [pending, nodes] at `cached`."""
        batch, rows = self._batch, len(self._batch.row_ids)
        depth = batch.put(np.tile(shape.depths, (rows, 1)))
        seen = batch.put(np.tile(shape.ancestors, (rows, 1, 1)))
        batch.watch.lap("other")
        out = self._session.target_tree(batch.both(ids), batch.rowwise(batch.state.cached), depth, seen)
        batch.watch.lap("target")
        return out

    def _settle(self, path: Ints, accepted: Ints, features: Array) -> None:
        """Leave the target's cache, and the features that the head is given, as if the path were a chain."""
        batch = self._batch
        along = batch.rowwise(_steps(path))
        self.drafter.seen(features[batch.row_ids[:, None], along])
        moves = (path != np.arange(path.shape[1])) & (np.arange(path.shape[1]) < accepted[:, None])
        if moves.any():
            self._session.move(*(batch.host_rows(part) for part in (batch.state.cached, path, accepted)))
            batch.watch.lap("target")


def _steps(path: Host) -> Ints:
    """Return the step positions [M, l + 1] of the pending token and a path of nodes [M, l]."""
    return np.concatenate([np.zeros_like(path[:, :1]), path + 1], axis=1)
