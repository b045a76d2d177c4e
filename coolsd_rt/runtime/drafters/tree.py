"""Drafts of an EAGLE head in a static tree: the siblings below every node, level by level.

Knows the head's steps over trees. Does not know how a tree is verified. A round's first step and what the head keeps
between rounds are those of a chain. Legend as in `coolsd_rt.runtime.round` and `coolsd_rt.runtime.trees`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coolsd_rt.arrays import Array
from coolsd_rt.law.arrays import namespace
from coolsd_rt.ops.tree import draw_siblings
from coolsd_rt.runtime.batch import Batch, Window
from coolsd_rt.runtime.drafters.eagle import EagleDrafter
from coolsd_rt.runtime.interface import TreeSession
from coolsd_rt.runtime.randomness import DRAFT
from coolsd_rt.runtime.trees import TreeShape


class TreeDrafts(NamedTuple):
    """The drafts of the first levels of a tree, K' nodes."""

    tokens: Array  # int64 [M, K']; `NO_TOKEN` where Q had no other token
    probs: Array  # Q [M, n, V] after the pending token and each node that has drafts below it


class TreeDrafter(EagleDrafter):
    """Drafts trees with an EAGLE head.

    The rows of the head's cache from `cached` on hold the nodes, each level behind the one above it. They are
    overwritten by the next round.
    """

    def __init__(self, batch: Batch, session: TreeSession, shape: TreeShape) -> None:
        """session: of the batch."""
        super().__init__(batch)
        self._trees, self._shape = session, shape

    def draft_tree(self, window: Window, levels: int) -> TreeDrafts:
        """Return the drafts of the first `levels` levels.

        The step of a level runs over all nodes above it, whose results the levels before had already: so that one kind
        of step, with nothing between `pos` and the nodes, serves all levels.
        """
        batch, shape = self._batch, self._shape
        logits, guessed = self._first(*self._unseen.take(window.active))
        xp = namespace(logits)
        u = batch.put(window.uniforms[..., DRAFT])
        tokens: list[Array] = []
        probs: list[Array] = []
        features: list[Array] = []
        for level in range(levels):
            count, width, start = shape.levels[level], shape.widths[level], shape.starts[level]
            if level:
                above = shape.starts[level - 1]
                logits, guessed = self._step(level, xp.concat(tokens, axis=1), xp.concat(features, axis=1))
                logits, guessed = logits[:, above:], guessed[:, above:]
            batch.watch.lap("draft")
            at = np.repeat(window.at[:, level : level + 1], count, axis=1)
            q = batch.distribution(logits, batch.scale(at), at)
            numbers = u[:, start : start + count * width].reshape(-1, count, width)
            tokens.append(draw_siblings(q, numbers).reshape(-1, count * width))
            probs.append(q)
            features.append(guessed[:, batch.put(np.repeat(np.arange(count), width))])
            batch.watch.lap("verify")
        return TreeDrafts(xp.concat(tokens, axis=1), xp.concat(probs, axis=1))

    def _step(self, level: int, tokens: Array, features: Array) -> tuple[Array, Array]:
        """Step over all nodes of the first `level` levels: tokens [M, K'] and the features before them [R, K', C]."""
        batch, shape = self._batch, self._shape.top(level)
        rows = len(batch.row_ids)
        depth = batch.put(np.tile(shape.depths[1:] - 1, (rows, 1)))
        seen = batch.put(np.tile(shape.ancestors[1:, 1:], (rows, 1, 1)))
        ids = namespace(tokens).where(tokens < 0, 0, tokens)
        return self._trees.draft_tree(batch.both(ids), features, batch.rowwise(batch.state.cached), depth, seen)
