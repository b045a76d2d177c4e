"""The shape of a static tree of drafts: the numbers of its nodes, their parents, and who sees whom in a step.

A tree has `widths[l]` siblings below each node of depth l; the pending token is the root, at depth 0. Nodes are
numbered from 0, breadth first, so that the first levels of a tree have the first numbers. In a step of the target the
pending token is at step position 0 and node i at step position i + 1. Widths of 1 are a chain: node i is window index
i.

Pure data. Knows numbers. Does not know tokens, probabilities, caches or sessions.
Legend: K nodes, D depth of the tree.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coolsd_rt import limits
from coolsd_rt.arrays import Bools, Ints
from coolsd_rt.errors import UserError


@dataclass(frozen=True)
class TreeShape:
    """A static tree.

    widths: siblings below each node, one number for each depth. Raises UserError if there is none, or a number, or the
    number of nodes, is out of range.
    """

    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.widths:
            raise UserError("the widths of a tree", expected="at least one", found="none")
        for depth, width in enumerate(self.widths, start=1):
            limits.TREE_WIDTH.check(f"siblings at depth {depth} of a tree", width)
        limits.TREE_NODES.check("the nodes of a tree", self.nodes)

    @property
    def depth(self) -> int:
        """D: the most drafts that a round can accept."""
        return len(self.widths)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Number of nodes at each depth, the root's included: D + 1 numbers."""
        return tuple(itertools.accumulate((1, *self.widths), lambda nodes, width: nodes * width))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First node of depth 1, 2, .. D, and K."""
        return tuple(itertools.accumulate(self.levels[1:], initial=0))

    @property
    def nodes(self) -> int:
        """K: number of drafts of a round."""
        return self.starts[-1]

    @cached_property
    def depths(self) -> Ints:
        """Depth of each step position, int64 [K + 1]; 0 is the pending token."""
        return np.repeat(np.arange(self.depth + 1), self.levels)

    @cached_property
    def parents(self) -> Ints:
        """Parent of each node, int64 [K]; -1 is the pending token."""
        before = [-1, *self.starts[:-1]]  # first node of the depth above, from depth 1 on
        each = [
            np.repeat(start + np.arange(n), w) for start, n, w in zip(before, self.levels, self.widths, strict=False)
        ]
        return np.concatenate(each)

    @cached_property
    def ancestors(self) -> Bools:
        """Whether step position s sees step position j, bool [K + 1, K + 1]: its ancestors and itself."""
        seen = np.eye(self.nodes + 1, dtype=bool)
        for node, parent in enumerate(self.parents.tolist()):  # parents come first
            seen[node + 1] |= seen[parent + 1]
        return seen

    def children(self, node: int) -> range:
        """Return the siblings below a node, in draw order; -1 is the pending token. None below a leaf."""
        depth = int(self.depths[node + 1])
        if depth == self.depth:
            return range(0)
        rank = node - self.starts[depth - 1] if depth else 0
        first, width = self.starts[depth] + rank * self.widths[depth], self.widths[depth]
        return range(first, first + width)

    def top(self, depth: int) -> TreeShape:
        """Return the first `depth` levels, at least 1. Their nodes keep their numbers."""
        return TreeShape(self.widths[:depth])
