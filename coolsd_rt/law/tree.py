"""Static trees of drafts, and the exact law of the tokens that one round of a tree commits.

A tree has a number of siblings at each depth, for instance 4, 2, 1, 1: every node at depth i has `widths[i]` children,
drawn from the draft's Q after the tokens on the way to it, without replacement. Two ways to choose the path:

- `StaticTree`: at each node the first accepted sibling is the token, and the round goes on below it
  (`coolsd_rt.law.siblings`). Lossless where every omega <= 1.
- `LongestPath`: every node is judged, and the longest accepted path of the tree is taken. For comparison only: whether
  a sibling is the token then depends on the tokens below it, which biases the law.

Knows P and Q as functions of the tokens so far. Does not know models, sampling, caches or attention masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from coolsd_rt.errors import UserError
from coolsd_rt.law.exact import Context, Joint, Model, judged_round
from coolsd_rt.law.schedule import in_range
from coolsd_rt.law.siblings import node_law, sibling_draws
from coolsd_rt.limits import LAW_OMEGA


@dataclass(frozen=True)
class StaticTree:
    """A round whose drafts are a tree; at each node the first accepted sibling is the token.

    widths: siblings at each depth, 1 or more. omegas: relaxation of each depth.

    Raises UserError: lists of different lengths, a number out of range.
    """

    widths: tuple[int, ...]
    omegas: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.omegas):
            expected = f"{len(self.widths)}, one for each depth"
            raise UserError("the omegas of a tree", expected=expected, found=str(len(self.omegas)))
        for width in self.widths:
            if width < 1:
                raise UserError("the siblings of a tree", expected="1 or more at each depth", found=str(width))
        for i, omega in enumerate(self.omegas, start=1):
            in_range(f"omega {i}", omega, LAW_OMEGA)

    @property
    def length(self) -> int:
        """Depth of the tree: the most drafts that a round can accept."""
        return len(self.widths)

    @property
    def nodes(self) -> int:
        """Number of drafts of a round."""
        return sum(math.prod(self.widths[: i + 1]) for i in range(self.length))

    @property
    def passes(self) -> int:
        """Target passes of a round."""
        return 1

    def emitted(self, target: Model, draft: Model, context: Context = ()) -> Joint:
        """Return the probability of each token sequence that the round can commit, of 1 to length + 1 tokens."""

        def judge(p: Any, q: Any, i: int) -> tuple[Any, Any]:
            law = node_law(p, q, self.omegas[i], self.widths[i])
            return law.accepted.sum(0), law.after

        return judged_round(target, draft, judge, self.length, context)


@dataclass(frozen=True)
class LongestPath(StaticTree):
    """A round whose drafts are a tree, all of whose nodes are judged; the longest accepted path is taken.

    A node is judged with a uniform of its own, against the pair (P, Q) that stands if all siblings before it are
    rejected. Of paths of one length the first in draw order is taken. Below its end the token is drawn from what all
    siblings there leave of P, or from P at a leaf.
    """

    def emitted(self, target: Model, draft: Model, context: Context = ()) -> Joint:
        """Return the probability of each token sequence that the round can commit, of 1 to length + 1 tokens."""
        return self._below(target, draft, context, 0)

    def _below(self, target: Model, draft: Model, context: Context, depth: int) -> Joint:
        """Return the law of the longest accepted path below a node, with the token after it."""
        p = target(context)
        if depth == self.length:
            return {(x,): float(w) for x, w in enumerate(p) if w > 0}
        q = draft(context)
        below = {x: self._below(target, draft, (*context, x), depth + 1) for x, w in enumerate(q) if w > 0}
        longer = {x: _tails(law, self.length - depth + 1) for x, law in below.items()}
        out: Joint = {}
        for drawn in sibling_draws(p, q, self.omegas[depth], self.widths[depth]):
            pairs = tuple(zip(drawn.tokens, drawn.rates, strict=True))
            for y, w in enumerate(drawn.weight * math.prod(1 - rate for rate in drawn.rates) * drawn.left):
                out[(y,)] = out.get((y,), 0.0) + float(w)
            for j, (x, rate) in enumerate(pairs):
                for tokens, weight in below[x].items():
                    size = len(tokens)
                    # The path wins if no sibling before it has one as long, and none behind it a longer one.
                    ahead = math.prod(1 - r * longer[y][size - 1] for y, r in pairs[:j])
                    behind = math.prod(1 - r * longer[y][size] for y, r in pairs[j + 1 :])
                    key = (x, *tokens)
                    out[key] = out.get(key, 0.0) + drawn.weight * rate * weight * ahead * behind
        return {tokens: weight for tokens, weight in out.items() if weight > 0}


def _tails(law: Joint, most: int) -> list[float]:
    """Return the probability that a sequence has more than n tokens, for n = 0 .. most."""
    return [math.fsum(w for tokens, w in law.items() if len(tokens) > n) for n in range(most + 1)]
