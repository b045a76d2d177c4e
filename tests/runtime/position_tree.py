"""`tests.runtime.row_tree` for drafts that are judged position by position, in several passes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from coolsd_rt.law.rivals import PositionWise
from tests.runtime.row_tree import RowImage, index_of
from tests.runtime.tree import THIN, Box, Context, Floats, Leaf, draw, whole_law


def point(law: Floats, fixed: int) -> Floats:
    return law if fixed < 0 else np.asarray(np.eye(len(law))[fixed], np.float64)


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

    def rounds(codes: Context) -> Iterator[tuple[Context, float]]:
        own, length = guesses[index_of(codes, image.vocab)], image.length(codes, longest)
        windows = PositionWise(length, passes).emitted(tables.p, lambda after: own[len(after) - len(codes)], codes)
        for window, w in windows.items():
            yield from (((*window, x), w * float(v)) for x, v in enumerate(tables.p(codes + window)))

    return whole_law(image.tokens, tables.p(()), rounds)
