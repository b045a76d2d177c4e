"""Every way an image can be drawn, as boxes of uniforms: an account of the method that shares no line with the code.

A leaf is one path through all draws: for each number the round would use, the interval that leads down this path, and
the image at its end. The leaves' volumes sum to 1. So if the real round, fed the lower ends of a leaf's intervals and
again the upper ends, draws that leaf's image both times, for every leaf, then its law is the leaves' law.

Plain NumPy and Python after the method itself: distributions as lists, intervals as running sums. V and N must be tiny.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Context = tuple[int, ...]
Floats = NDArray[np.float64]
Model = Callable[[Context], Floats]
Key = tuple[int, int, int]  # image position, window offset, purpose (draft 0, accept 1, resample 2)
Box = tuple[tuple[Key, float, float], ...]

EDGE = 1e-12  # how far inside an interval the probes lie
THIN = 4 * EDGE  # narrower intervals are roundings, not branches


@dataclass(frozen=True)
class Leaf:
    codes: Context
    box: Box
    rounds: int
    accepted: int
    degenerate: int

    @property
    def volume(self) -> float:
        return float(np.prod([high - low for _, low, high in self.box]))


@dataclass(frozen=True)
class Method:
    """The law, spelled out a second time."""

    omegas: tuple[float, ...]
    resampler: str = "optimal"
    forced: Context | None = None
    lantern: tuple[str, float, list[list[int]]] | None = None  # rule, bound, neighbours of each code
    lend: int | None = None  # how many of them may lend: all; LANTERN's own residual zeroes one more
    rates: tuple[float, ...] | None = None
    confidence: float = 0.0
    draft_confidence: float = 0.0

    def fixed(self, n: int) -> int | None:
        return None if self.forced is None or self.forced[n] < 0 else self.forced[n]

    def limit(self, p: Floats, x: int) -> float:
        assert self.lantern is not None
        kind, bound, _ = self.lantern
        return bound if kind == "lantern" else (bound - 1) * float(p[x])

    def lent(self, p: Floats, x: int) -> float:
        """The largest sum of P over nearest codes that stays within the limit."""
        if self.lantern is None:
            return 0.0
        near = [float(p[y]) for y in self.lantern[2][x][: self.lend]]
        sums = [sum(near[: n + 1]) for n in range(len(near))]
        return max([s for s in sums if s <= self.limit(p, x)], default=0.0)

    def rate(self, p: Floats, q: Floats, i: int, x: int) -> float:
        """With which probability draft x of position i is kept."""
        if self.rates is not None:
            return self.rates[i]
        return min(1.0, (self.omegas[i] * float(p[x]) + self.lent(p, x)) / float(q[x]))

    def after_rejection(self, p: Floats, q: Floats, omega: float, x: int) -> tuple[Floats, bool]:
        capped = np.array([min(b, omega * a + self.lent(p, y)) for y, (a, b) in enumerate(zip(p, q, strict=True))])
        if self.resampler == "lantern":
            assert self.lantern is not None
            near = self.lantern[2][x]
            near = near if self.lend is None else near[: self.lend + 1]
            capped = np.array(q)
            if p[near[0]] <= self.limit(p, x):
                capped[near] = 0.0
            left = np.maximum(p - capped, 0)
            return (p, True) if left.sum() < 1e-6 else (left / left.sum(), False)
        if self.resampler == "waterfill":
            left = np.maximum(level(p, capped) * p - capped, 0)
        else:
            left = {"optimal": np.maximum(p - capped, 0), "residual": np.maximum(p - q, 0), "target": p}[self.resampler]
        return (p, True) if left.sum() < 1e-6 else (left / left.sum(), False)


def level(p: Floats, capped: Floats) -> float:
    """The height to which the lowest out / P are raised until the rejection's mass is placed, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        placed = float(np.maximum(middle * p - capped, 0).sum())
        low, high = (middle, high) if placed < 1 - capped.sum() else (low, middle)
    return high


def draw(law: Floats, key: Key) -> Iterator[tuple[int, Box]]:
    """Every token that can be drawn from a law, and the interval of the number that draws it."""
    low = 0.0
    for x, weight in enumerate(law):
        if weight > THIN:
            yield x, ((key, low, low + float(weight)),)
        low += float(weight)


def whole_law(
    tokens: int, first: Floats, rounds: Callable[[Context], Iterable[tuple[Context, float]]]
) -> dict[Context, float]:
    """The law of an image of `tokens` tokens: its first one, then what the rounds after each context can commit."""
    out: dict[Context, float] = {}
    ways: dict[Context, float] = {(x,): float(w) for x, w in enumerate(first) if w > 0}
    while ways:
        grown: dict[Context, float] = {}
        for codes, weight in ways.items():
            if len(codes) == tokens:
                out[codes] = out.get(codes, 0.0) + weight
                continue
            for new, w in rounds(codes):
                grown[codes + new] = grown.get(codes + new, 0.0) + weight * w
        ways = grown
    return out


def leaves(target: Model, draft: Model, method: Method, tokens: int) -> list[Leaf]:
    """All leaves of an image of `tokens` tokens."""

    def point(model: Model, context: Context) -> Floats:
        fixed = method.fixed(len(context))
        law = model(context)
        return law if fixed is None else np.eye(len(law))[fixed]

    def image(codes: Context, box: Box, rounds: int, accepted: int, degenerate: int) -> Iterator[Leaf]:
        if len(codes) == tokens:
            yield Leaf(codes, box, rounds, accepted, degenerate)
            return
        length = min(len(method.omegas), tokens - len(codes) - 1)
        if max(point(target, codes[:-1])) < method.confidence:  # where the last token was drawn
            length = 0
        for new, more, kept, bad in window(codes, (), (), length):
            yield from image(codes + new, box + more, rounds + 1, accepted + kept, degenerate + bad)

    def window(codes: Context, done: Context, box: Box, length: int) -> Iterator[tuple[Context, Box, int, int]]:
        i, context = len(done), codes + done
        n = len(context)
        p = point(target, context)
        if i == length or max(point(draft, context)) < method.draft_confidence:
            yield from (((*done, x), box + b, i, 0) for x, b in draw(p, (n, i, 2)))
            return
        q, omega = point(draft, context), method.omegas[i]
        for x, drawn in draw(q, (n, i, 0)):
            rate = 1.0 if method.fixed(n) is not None else method.rate(p, q, i, x)
            if rate > THIN:
                yield from window(codes, (*done, x), (*box, *drawn, ((n, i, 1), 0.0, rate)), length)
            if 1 - rate > THIN:
                law, bad = method.after_rejection(p, q, omega, x)
                rejected = (*box, *drawn, ((n, i, 1), rate, 1.0))
                yield from (((*done, y), rejected + b, i, int(bad)) for y, b in draw(law, (n, i, 2)))

    return [leaf for x, box in draw(point(target, ()), (0, 0, 2)) for leaf in image((x,), box, 0, 0, 0)]


def probes(found: list[Leaf], tokens: int, length: int, upper: bool, purposes: int = 3) -> Floats:
    """The uniforms [leaves, tokens, length + 1, purposes] of each leaf's lower or upper corner; unused ones are 0.5."""
    table = np.full((len(found), tokens, length + 1, purposes), 0.5)
    for row, leaf in enumerate(found):
        for key, low, high in leaf.box:
            table[(row, *key)] = min(high - EDGE, 1 - 2**-53) if upper else (low + EDGE if low else 0.0)
    return table


def output_law(found: list[Leaf]) -> dict[Context, float]:
    law: dict[Context, float] = {}
    for leaf in found:
        law[leaf.codes] = law.get(leaf.codes, 0.0) + leaf.volume
    return law


def check_leaves(found: list[Leaf], codes: Any, rounds: Any = None) -> None:
    """Raise AssertionError at the first leaf that is not what was drawn: codes [leaves, tokens], rounds [leaves].

    Two lists of thousands of leaves in one `assert` take pytest minutes to compare when they differ.
    """
    for row, leaf in enumerate(found):
        drawn = tuple(codes[row].tolist())
        if drawn != leaf.codes:
            raise AssertionError(f"leaf {row} of {len(found)}: expected {leaf.codes}, drawn {drawn}; {leaf.box}")
        if rounds is not None and int(rounds[row]) != leaf.rounds:
            raise AssertionError(f"leaf {row} of {len(found)}: expected {leaf.rounds} rounds, found {int(rounds[row])}")
    if len(codes) != len(found):
        raise AssertionError(f"expected {len(found)} images, found {len(codes)}")
