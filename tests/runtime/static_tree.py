"""Every way an image can be drawn with static trees of drafts, as boxes of uniforms.

As `tests.runtime.tree` for chains, and imports nothing of the package. A node is named by the way to it, such as
(1, 0): the first child of the second child of the root. Siblings behind an accepted one, and nodes that
the round never comes to, are drawn with numbers that no leaf names: the image must not depend on them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tests.runtime.tree import THIN, Box, Context, Floats, Leaf, Model, draw, probes

Way = tuple[int, ...]
Pair = tuple[Floats, Floats]  # P and Q


@dataclass(frozen=True)
class Trees:
    """widths and omegas: of each depth. forced: the token of each position, or -1."""

    widths: tuple[int, ...]
    omegas: tuple[float, ...]
    forced: Context | None = None
    confidence: float = 0.0

    def fixed(self, n: int) -> int | None:
        return None if self.forced is None or self.forced[n] < 0 else self.forced[n]

    @property
    def numbers(self) -> dict[Way, int]:
        """All nodes but the root, numbered level by level."""
        depths = range(1, len(self.widths) + 1)
        ways = [way for d in depths for way in itertools.product(*(range(w) for w in self.widths[:d]))]
        return {way: number for number, way in enumerate(ways)}


def without(q: Floats, x: int) -> Floats:
    left = [0.0 if y == x else float(weight) for y, weight in enumerate(q)]
    return np.array(left) / sum(left) if sum(left) > 0 else np.array(left)


def what_is_missing(p: Floats, q: Floats, omega: float) -> tuple[Floats, bool]:
    left = np.array([max(0.0, a - min(b, omega * a)) for a, b in zip(p, q, strict=True)])
    return (p, True) if left.sum() < 1e-6 else (left / left.sum(), False)


def tree_leaves(target: Model, draft: Model, trees: Trees, tokens: int) -> list[Leaf]:
    """All leaves of an image of `tokens` tokens."""
    number, depth = trees.numbers, len(trees.widths)

    def point(model: Model, context: Context) -> Floats:
        fixed, law = trees.fixed(len(context)), model(context)
        return law if fixed is None else np.eye(len(law))[fixed]

    def image(codes: Context, box: Box, rounds: int, accepted: int, degenerate: int) -> Iterator[Leaf]:
        if len(codes) == tokens:
            yield Leaf(codes, box, rounds, accepted, degenerate)
            return
        limit = min(depth, tokens - len(codes) - 1)
        if max(point(target, codes[:-1])) < trees.confidence:
            limit = 0
        for new, more, kept, bad in node(codes, (), (), (), limit, 0):
            yield from image(codes + new, box + more, rounds + 1, accepted + kept, degenerate + bad)

    def node(
        codes: Context, way: Way, done: Context, box: Box, limit: int, bad: int
    ) -> Iterator[tuple[Context, Box, int, int]]:
        """What can follow once the nodes on the way are accepted."""
        p = point(target, codes + done)
        if len(way) == limit:
            key = (len(codes + done), number.get((*way, 0), len(number)), 2)
            yield from (((*done, x), box + b, len(way), bad) for x, b in draw(p, key))
        else:
            yield from siblings(codes, way, done, box, limit, bad, (p, point(draft, codes + done)), 0)

    def siblings(
        codes: Context, way: Way, done: Context, box: Box, limit: int, bad: int, pair: Pair, j: int
    ) -> Iterator[tuple[Context, Box, int, int]]:
        """What can follow once siblings before j are rejected."""
        (p, q), n, d = pair, len(codes + done), len(way)
        if j == trees.widths[d] or not q.any():
            key = (n, number[(*way, 0)], 2)
            yield from (((*done, x), box + b, d, bad) for x, b in draw(p, key))
            return
        own = number[(*way, j)]
        left, empty = what_is_missing(p, q, trees.omegas[d])
        for x, drawn in draw(q, (n, own, 0)):
            rate = 1.0 if trees.fixed(n) is not None else min(1.0, trees.omegas[d] * float(p[x]) / float(q[x]))
            if rate > THIN:
                judged = (*box, *drawn, ((n, own, 1), 0.0, rate))
                yield from node(codes, (*way, j), (*done, x), judged, limit, bad)
            if 1 - rate > THIN:
                judged = (*box, *drawn, ((n, own, 1), rate, 1.0))
                yield from siblings(codes, way, done, judged, limit, bad | empty, (left, without(q, x)), j + 1)

    return [leaf for x, box in draw(point(target, ()), (0, 0, 2)) for leaf in image((x,), box, 0, 0, 0)]


def tree_probes(found: list[Leaf], tokens: int, trees: Trees, upper: bool) -> Floats:
    """As `probes`; the numbers that a leaf does not name are random."""
    table = probes(found, tokens, len(trees.numbers), upper)
    named = np.zeros(table.shape, bool)
    for row, leaf in enumerate(found):
        for key, _, _ in leaf.box:
            named[(row, *key)] = True
    return np.where(named, table, np.random.default_rng(upper).random(table.shape))
