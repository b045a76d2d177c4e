"""Random trees and their paths: what a step along a tree has to give is what chain steps along each path give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from coolsd_rt.arrays import Bools, Ints


@dataclass(frozen=True)
class Grown:
    """A tree of a pending token and K nodes, breadth first. parents int64 [K]: -1 below the pending token."""

    parents: Ints

    @staticmethod
    def of(widths: tuple[int, ...]) -> Grown:
        """The static tree of these widths."""
        parents, level = list[int](), [-1]
        for width in widths:
            below = [node for node in level for _ in range(width)]
            level = list(range(len(parents), len(parents) + len(below)))
            parents += below
        return Grown(np.array(parents))

    @staticmethod
    def random(nodes: int, seed: int) -> Grown:
        """Any tree: each node below the pending token or below any node before it."""
        rng = np.random.default_rng(seed)
        return Grown(np.array([rng.integers(-1, node) if node else -1 for node in range(nodes)]))

    def path(self, node: int) -> list[int]:
        """Nodes from below the pending token to `node`."""
        nodes = list[int]()
        while node >= 0:
            nodes.insert(0, node)
            node = int(self.parents[node])
        return nodes

    def paths(self) -> Iterator[list[int]]:
        """The path of each node."""
        return (self.path(node) for node in range(len(self.parents)))

    def depth(self, rows: int, pending: bool = True) -> Ints:
        """The input `depth` int64 [R, S] of a step over the pending token and all nodes, or over the nodes alone."""
        depths = [len(path) for path in self.paths()]
        return np.tile(np.array([0, *depths] if pending else [d - 1 for d in depths]), (rows, 1))

    def seen(self, rows: int, pending: bool = True) -> Bools:
        """The input `seen` bool [R, S, S]."""
        size = len(self.parents) + 1
        seen = np.eye(size, dtype=np.bool_)
        seen[:, 0] = True
        for node, path in enumerate(self.paths()):
            seen[node + 1, np.array(path) + 1] = True
        return np.tile(seen if pending else seen[1:, 1:], (rows, 1, 1))


@dataclass
class TreeCheck:
    """A session that steps along a tree, beside one that steps along each of its paths; compares whatever comes out.

    branching, chain: sessions of the same engine on the same rows. prefix, vocab, dim: W, V and C. tolerance: of the
    largest error over the largest value.
    """

    branching: Any
    chain: Any
    rows: int
    prefix: int
    vocab: int
    dim: int
    tolerance: float
    seed: int = 0
    worst: float = 0.0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        blank = np.zeros((self.rows, self.prefix), np.int64)
        tokens = self._ids(5)
        for session in (self.branching, self.chain):
            self._call(session, "target", blank, blank[:, 0])
            self._call(session, "target", tokens, blank[:, 0] + self.prefix)
        # Rows differ in their next position, as after rounds that accepted different numbers of drafts.
        self.pos = self.prefix + 1 + np.arange(self.rows) % 4

    def _ids(self, size: int) -> Ints:
        return self.rng.integers(0, self.vocab, (self.rows, size))

    def _call(self, session: Any, step: str, *arrays: Any) -> list[Any]:
        given = [session.asarray(x, str(x.dtype)) for x in arrays]
        return [np.asarray(out) for out in getattr(session, step)(*given)]

    def _close(self, found: list[Any], wanted: list[Any]) -> None:
        for x, y in zip(found, wanted, strict=True):
            assert x.shape == y.shape
            self.worst = max(self.worst, float(np.abs(x - y).max() / np.abs(y).max()))
        assert self.worst < self.tolerance

    def target(self, tree: Grown) -> Ints:
        """Step along the tree, and along each path; return the ids int64 [R, 1 + K]."""
        ids = self._ids(1 + len(tree.parents))
        found = self._call(self.branching, "target_tree", ids, self.pos, tree.depth(self.rows), tree.seen(self.rows))
        for path in ([], *tree.paths()):
            steps = np.array([0, *(node + 1 for node in path)])
            wanted = self._call(self.chain, "target", ids[:, steps], self.pos)
            self._close([x[:, steps] for x in found], wanted)
        return ids

    def moved(self, tree: Grown, ids: Ints) -> None:
        """Commit a path of each row on both sides, of different lengths; the next steps have to agree."""
        leaves = self.rng.integers(0, len(tree.parents), self.rows)
        paths = [tree.path(int(leaf)) for leaf in leaves]
        count = np.array([self.rng.integers(0, len(path) + 1) for path in paths])
        count[-1] = len(paths[-1])
        path = np.zeros((self.rows, max(map(len, paths))), np.int64)
        for row, nodes in enumerate(paths):
            path[row, : len(nodes)] = nodes
        self.branching.move(self.pos, path, count)
        chain = np.concatenate([ids[:, :1], np.take_along_axis(ids, path + 1, axis=1)], axis=1)
        self._call(self.chain, "target", chain, self.pos)
        self.pos = self.pos + 1 + count
        tokens = self._ids(2)
        self._close(*(self._call(session, "target", tokens, self.pos) for session in (self.branching, self.chain)))

    def draft(self, tree: Grown) -> None:
        """Step the head along the pending positions, then along all nodes at once, and along each path."""
        size = len(tree.parents)
        ids, features = self._ids(size), self.rng.standard_normal((self.rows, size, self.dim)).astype(np.float32)
        first, given = self._ids(4), self.rng.standard_normal((self.rows, 4, self.dim)).astype(np.float32)
        at = self.pos - 4
        self._close(*(self._call(session, "draft", first, given, at) for session in (self.branching, self.chain)))
        shape = tree.depth(self.rows, pending=False), tree.seen(self.rows, pending=False)
        found = self._call(self.branching, "draft_tree", ids, features, self.pos, *shape)
        for path in tree.paths():
            wanted = self._call(self.chain, "draft", ids[:, path], features[:, path], self.pos)
            self._close([x[:, path] for x in found], wanted)

    def all(self) -> None:
        """Static and random trees of both models, one round after another."""
        for tree in (Grown.of((3, 2, 1)), Grown.random(7, self.seed), Grown.of((1, 1, 1)), Grown.random(5, 9)):
            self.moved(tree, self.target(tree))
            self.draft(tree)


class Planted:
    """A session with a bug: `sibling` is seen, `depth` is ignored, or accepted rows are not `moved`."""

    def __init__(self, session: Any, bug: str) -> None:
        self._session, self._bug = session, bug

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def _shape(self, depth: Any, seen: Any) -> tuple[Any, Any]:
        rows, size = depth.shape
        if self._bug == "depth":
            depth = self.asarray(np.tile(np.arange(size), (rows, 1)), "int64")
        if self._bug == "sibling":
            seen = self.asarray(np.tile(np.tri(size, dtype=np.bool_), (rows, 1, 1)), "bool")
        return depth, seen

    def target_tree(self, ids: Any, pos: Any, depth: Any, seen: Any) -> Any:
        return self._session.target_tree(ids, pos, *self._shape(depth, seen))

    def draft_tree(self, ids: Any, features: Any, pos: Any, depth: Any, seen: Any) -> Any:
        return self._session.draft_tree(ids, features, pos, *self._shape(depth, seen))

    def move(self, pos: Any, path: Any, count: Any) -> None:
        if self._bug != "moved":
            self._session.move(pos, path, count)
