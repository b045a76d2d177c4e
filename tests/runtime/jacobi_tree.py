"""`tests.runtime.tree` for drafts of the target's own last round: every way an image can be drawn by Jacobi decoding.

Written after the papers, not after the code: a window of laws and tokens that slides over the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.runtime.tree import THIN, Box, Context, Floats, Key, Leaf, Method, Model, draw


@dataclass(frozen=True)
class Carried:
    """What the window holds of the last round: laws by window index, a token where one is passed on, and the law that
    positions new to the window are drawn from."""

    laws: tuple[Floats, ...]
    tokens: tuple[int | None, ...]
    last: Floats

    def at(self, j: int) -> tuple[Floats, int | None]:
        return (self.laws[j], self.tokens[j]) if j < len(self.laws) else (self.last, None)


def narrowed(box: Box) -> Box:
    """The box with one interval for each number: a noise that is drawn from several times has several."""
    ends: dict[Key, tuple[float, float]] = {}
    for key, low, high in box:
        before = ends.get(key, (0.0, 1.0))
        ends[key] = max(before[0], low), min(before[1], high)
    return tuple((key, *end) for key, end in ends.items())


def possible(box: Box) -> bool:
    return all(high - low > THIN for _, low, high in narrowed(box))


def jacobi_leaves(target: Model, method: Method, tokens: int, coupled: bool, noise: bool = False) -> list[Leaf]:
    """All leaves of an image of `tokens` tokens.

    noise: of binary tokens alone: a position's draft is drawn with the number (position, 0, 0) in every round. Of two
    codes the noise is one number r in [0, 1): code 0 wins where r is below Q(0).
    """

    def image(codes: Context, box: Box, carried: Carried, rounds: int, accepted: int) -> Iterator[Leaf]:
        if len(codes) == tokens:
            yield Leaf(codes, narrowed(box), rounds, accepted, 0)
            return
        length = min(len(method.omegas), tokens - len(codes) - 1)
        for drafts, more in drafted(len(codes), carried, (), (), length):
            p = [target(codes + drafts[:i]) for i in range(length + 1)]
            for kept, token, verdict in judged(len(codes), drafts, carried, p, 0):
                for moved, coupling in passed_on(len(codes), drafts, carried, p, kept + 1):
                    new = codes + drafts[:kept] + (token,)
                    window = Carried(tuple(p[kept + 1 :]), (*moved, None)[: length - kept], p[length])
                    whole = box + more + verdict + coupling
                    if possible(whole):
                        yield from image(new, whole, window, rounds + 1, accepted + kept)

    def drafted(n: int, carried: Carried, done: Context, box: Box, length: int) -> Iterator[tuple[Context, Box]]:
        j = len(done)
        if j == length:
            yield done, box
            return
        law, token = carried.at(j)
        options = draw(law, (n + j, 0 if noise else j, 0)) if token is None else iter([(token, ())])
        for x, more in options:
            yield from drafted(n, carried, (*done, x), box + more, length)

    def judged(n: int, drafts: Context, carried: Carried, p: list[Floats], i: int) -> Iterator[tuple[int, int, Box]]:
        if i == len(drafts):
            yield from ((i, x, box) for x, box in draw(p[i], (n + i, i, 2)))
            return
        q, x = carried.at(i)[0], drafts[i]
        rate = method.rate(p[i], q, i, x)
        if rate > THIN:
            for kept, token, box in judged(n, drafts, carried, p, i + 1):
                yield kept, token, (((n + i, i, 1), 0.0, rate), *box)
        if 1 - rate > THIN:
            law, _ = method.after_rejection(p[i], q, method.omegas[i], x)
            yield from ((i, y, (((n + i, i, 1), rate, 1.0), *box)) for y, box in draw(law, (n + i, i, 2)))

    def passed_on(
        n: int, drafts: Context, carried: Carried, p: list[Floats], i: int
    ) -> Iterator[tuple[tuple[int | None, ...], Box]]:
        """Drafts from window index i on, moved from their old law to p by the maximal coupling."""
        if i >= len(drafts):
            yield (), ()
            return
        if not coupled:
            yield (None,) * (len(drafts) - i), ()
            return
        lossless = Method((1.0,) * len(drafts))
        q, x = carried.at(i)[0], drafts[i]
        rate = lossless.rate(p[i], q, i, x)
        for rest, more in passed_on(n, drafts, carried, p, i + 1):
            if rate > THIN:
                yield (x, *rest), (((n + i, i, 1), 0.0, rate), *more)
            if 1 - rate > THIN:
                law, _ = lossless.after_rejection(p[i], q, 1.0, x)
                for y, box in draw(law, (n + i, i, 2)):
                    yield (y, *rest), (((n + i, i, 1), rate, 1.0), *box, *more)

    first = target(())
    return [leaf for x, box in draw(first, (0, 0, 2)) for leaf in image((x,), box, Carried((), (), first), 0, 0)]
