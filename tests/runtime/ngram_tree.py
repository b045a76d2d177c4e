"""`tests.runtime.tree` for drafts by n-gram lookup: every way an image can be drawn, and the law of it in closed form.

The lookup is a search through the whole history, written after what it is said to find.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from coolsd_rt.law import Law, exact
from tests.runtime.tree import THIN, Box, Context, Floats, Leaf, Method, Model, draw, whole_law


def searched(
    history: Context, count: int, longest: int, shortest: int, forced: Context = ()
) -> tuple[Context, int | None]:
    """The tokens that a lookup proposes after `history`, and how long the n-gram was that it found."""
    place, size = None, None
    for n in range(longest, shortest - 1, -1):
        starts = [s for s in range(len(history) - n) if history[s : s + n] == history[len(history) - n :]]
        if starts:
            place, size = starts[-1] + n, n
            break
    whole = list(history)
    for i in range(count):
        if i < len(forced) and forced[i] >= 0:
            whole.append(forced[i])
        elif place is not None:
            whole.append(whole[place + i])
        else:
            break
    return tuple(whole[len(history) :]), size


@dataclass(frozen=True)
class Searched:
    """An image of `tokens` tokens whose drafts are searched for."""

    target: Model
    tokens: int
    longest: int = 3
    shortest: int = 1
    prompt: Context = ()

    def drafts(self, codes: Context, length: int, forced: Context | None = None) -> Context:
        count = min(length, self.tokens - len(codes) - 1)
        there = () if forced is None else forced[len(codes) :]
        return searched(self.prompt + codes, count, self.longest, self.shortest, there)[0]

    def law(self, law: Law) -> dict[Context, float]:
        """The law of the image, by the closed form of each round."""
        size = len(self.target(()))

        def rounds(codes: Context) -> Iterable[tuple[Context, float]]:
            drafts = self.drafts(codes, law.length)
            certain = np.eye(size)
            return exact.round_law(
                self.target, lambda context: certain[drafts[len(context) - len(codes)]], law, codes, len(drafts) + 1
            ).items()

        return whole_law(self.tokens, self.target(()), rounds)

    def leaves(self, method: Method) -> list[Leaf]:
        """All paths through all draws. A draft is certain, so that it takes no number."""

        def point(context: Context) -> Floats:
            fixed, law = method.fixed(len(context)), self.target(context)
            return law if fixed is None else np.asarray(np.eye(len(law))[fixed], np.float64)

        def image(codes: Context, box: Box, rounds: int, accepted: int, degenerate: int) -> Iterator[Leaf]:
            if len(codes) == self.tokens:
                yield Leaf(codes, box, rounds, accepted, degenerate)
                return
            drafts = self.drafts(codes, len(method.omegas), method.forced)
            for kept, token, more, bad in judged(codes, drafts, 0):
                new = codes + drafts[:kept] + (token,)
                yield from image(new, box + more, rounds + 1, accepted + kept, degenerate + bad)

        def judged(codes: Context, drafts: Context, i: int) -> Iterator[tuple[int, int, Box, int]]:
            n = len(codes) + i
            p = point(codes + drafts[:i])
            if i == len(drafts):
                yield from ((i, x, box, 0) for x, box in draw(p, (n, i, 2)))
                return
            x = drafts[i]
            q = np.asarray(np.eye(len(p))[x], np.float64)
            rate = 1.0 if method.fixed(n) is not None else method.rate(p, q, i, x)
            if rate > THIN:
                for kept, token, box, bad in judged(codes, drafts, i + 1):
                    yield kept, token, (((n, i, 1), 0.0, rate), *box), bad
            if 1 - rate > THIN:
                law, empty = method.after_rejection(p, q, method.omegas[i], x)
                for y, box in draw(law, (n, i, 2)):
                    yield i, y, (((n, i, 1), rate, 1.0), *box), int(empty)

        return [leaf for x, box in draw(point(()), (0, 0, 2)) for leaf in image((x,), box, 0, 0, 0)]
