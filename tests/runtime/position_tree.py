"""`tests.runtime.row_tree` for drafts that are judged position by position, in several passes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from coolsd_rt.law.rivals import PositionWise
from tests.runtime.row_tree import RowImage, index_of
from tests.runtime.tree import THIN, Box, Context, Floats, Key, Leaf


def point(law: Floats, fixed: int) -> Floats:
    return law if fixed < 0 else np.asarray(np.eye(len(law))[fixed], np.float64)


def draw(law: Floats, key: Key) -> Iterator[tuple[int, Box]]:
    low = 0.0
    for x, weight in enumerate(law):
        if weight > THIN:
            yield x, ((key, low, low + float(weight)),)
        low += float(weight)


def leaves(image: RowImage, longest: int, passes: int, forced: Context | None = None) -> list[Leaf]:
    """All paths through all draws. Purposes: pass k accepts with number 1 + 2k and draws again with 2 + 2k."""
    tables, guesses = image.tables, image.guesses

    def p_after(codes: Context) -> Floats:
        return point(tables.p(codes), -1 if forced is None else forced[len(codes)])

    def grow(codes: Context, box: Box, rounds: int, accepted: int) -> Iterator[Leaf]:
        if len(codes) == image.tokens:
            yield Leaf(codes, box, rounds, accepted, 0)
            return
        length = image.length(codes, longest)
        for window, more in drafted(codes, length):
            for x, last in draw(p_after(codes + window), (len(codes) + length, length, 2)):
                yield from grow((*codes, *window, x), box + more + last, rounds + 1, accepted + length)

    def drafted(codes: Context, length: int) -> Iterator[tuple[Context, Box]]:
        start = len(codes)
        own = guesses[index_of(codes, image.vocab)]
        laws = [point(own[i], -1 if forced is None else forced[start + i]) for i in range(length)]
        for each in product(*(list(draw(laws[i], (start + i, i, 0))) for i in range(length))):
            yield from judged(codes, tuple(x for x, _ in each), laws, sum((b for _, b in each), ()), 0)

    def judged(codes: Context, window: Context, laws: list[Floats], box: Box, k: int) -> Iterator[tuple[Context, Box]]:
        if k == passes:
            yield window, box
            return
        start, now = len(codes), [p_after(codes + window[:i]) for i in range(len(window))]
        ways = [list(one(now[i], laws[i], x, (start + i, i), k)) for i, x in enumerate(window)]
        for each in product(*ways):
            yield from judged(codes, tuple(x for x, _ in each), now, box + sum((b for _, b in each), ()), k + 1)

    def one(p: Floats, q: Floats, x: int, at: tuple[int, int], k: int) -> Iterator[tuple[int, Box]]:
        rate = min(1.0, float(p[x]) / float(q[x]))
        if rate > THIN:
            yield x, (((*at, 1 + 2 * k), 0.0, rate),)
        if 1 - rate > THIN:
            left = np.maximum(p - q, 0)
            for y, box in draw(left / left.sum(), (*at, 2 + 2 * k)):
                yield y, (((*at, 1 + 2 * k), rate, 1.0), *box)

    return [leaf for x, box in draw(p_after(()), (0, 0, 2)) for leaf in grow((x,), box, 0, 0)]


def image_law(image: RowImage, longest: int, passes: int) -> dict[Context, float]:
    """The law of the image by the closed form of each window."""
    tables, guesses = image.tables, image.guesses
    out: dict[Context, float] = {}
    ways: dict[Context, float] = {(x,): float(w) for x, w in enumerate(tables.p(())) if w > 0}
    while ways:
        grown: dict[Context, float] = {}
        for codes, weight in ways.items():
            if len(codes) == image.tokens:
                out[codes] = out.get(codes, 0.0) + weight
                continue
            own = guesses[index_of(codes, image.vocab)]

            def q(context: Context, start: int = len(codes), own: Floats = own) -> Floats:
                return np.asarray(own[len(context) - start], np.float64)

            length = image.length(codes, longest)
            for window, w in PositionWise(length, passes).emitted(tables.p, q, codes).items():
                for x, v in enumerate(tables.p(codes + window)):
                    grown[*codes, *window, x] = grown.get((*codes, *window, x), 0.0) + weight * w * float(v)
        ways = grown
    return out
