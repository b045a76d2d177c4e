"""Every tree of drafts that can be drawn and judged, one by one, in exact fractions: an account that shares no line
with the package.

A tree is drawn whole: at each node the ordered siblings, one after another from what Q has left. Every node is judged
with a uniform of its own, so it is accepted or not, independently. Then a path is chosen: below each node the first
accepted sibling, or the longest accepted path of all. V, widths and depth must be tiny.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from coolsd_rt.arrays import Floats64

Context = tuple[int, ...]
Law = list[Fraction]
Model = Callable[[Context], Law]


@dataclass(frozen=True)
class Node:
    """tokens: its children in draw order. accepted: whether each is. below: their own nodes. left: what P became."""

    tokens: Context
    accepted: tuple[bool, ...]
    below: tuple[Node, ...]
    left: Law


Chosen = tuple[Context, Law]  # a path, and the law of the token after it


def table(vocab: int, depth: int, seed: int, least: int = 0) -> dict[Context, Law]:
    """A random distribution in small fractions after each context of up to `depth` tokens; least 0: some are zero."""
    rng = np.random.default_rng(seed)
    contexts: list[Context] = [()]
    for _ in range(depth):
        contexts += [(*c, x) for c in contexts for x in range(vocab)]
    out = {}
    for context in contexts:
        weights = [int(w) for w in rng.integers(least, 5, vocab)]
        weights[int(rng.integers(vocab))] += 1
        out[context] = [Fraction(w, sum(weights)) for w in weights]
    return out


def as_floats(laws: dict[Context, Law]) -> Callable[[Context], Floats64]:
    return lambda context: np.array([float(w) for w in laws[context]])


def after(p: Law, q: Law, omega: Fraction, x: int) -> tuple[Law, Law]:
    """The pair that stands once x is rejected; P is all zeros where a rejection was impossible."""
    lack = [max(a - min(b, omega * a), Fraction(0)) for a, b in zip(p, q, strict=True)]
    rest = [b if y != x else Fraction(0) for y, b in enumerate(q)]
    return [w / (sum(lack) or 1) for w in lack], [w / (sum(rest) or 1) for w in rest]


def siblings(
    p: Law, q: Law, omega: Fraction, count: int
) -> Iterator[tuple[Fraction, Context, tuple[Fraction, ...], Law]]:
    """Probability, ordered siblings, the rate of each if those before are rejected, and what is left of P."""
    if count == 0 or not any(q):
        yield Fraction(1), (), (), p
        return
    for x, drawn in enumerate(q):
        if drawn:
            rate = min(Fraction(1), omega * p[x] / drawn)
            for weight, tokens, rates, left in siblings(*after(p, q, omega, x), omega, count - 1):
                yield drawn * weight, (x, *tokens), (rate, *rates), left


def nodes(
    p: Model, q: Model, widths: tuple[int, ...], omegas: tuple[Fraction, ...], context: Context = ()
) -> Iterator[tuple[Fraction, Node]]:
    """Every judged tree below a context, with its probability."""
    if not widths:
        yield Fraction(1), Node((), (), (), p(context))
        return
    for weight, tokens, rates, left in siblings(p(context), q(context), omegas[0], widths[0]):
        below = [list(nodes(p, q, widths[1:], omegas[1:], (*context, x))) for x in tokens]
        for chance, flags, parts in _ways(rates, below):
            yield weight * chance, Node(tokens, flags, parts, left)


def _ways(
    rates: tuple[Fraction, ...], below: list[list[tuple[Fraction, Node]]]
) -> Iterator[tuple[Fraction, tuple[bool, ...], tuple[Node, ...]]]:
    if not rates:
        yield Fraction(1), (), ()
        return
    for chance, flags, parts in _ways(rates[1:], below[1:]):
        for weight, node in below[0]:
            for flag, rate in ((True, rates[0]), (False, 1 - rates[0])):
                if rate:
                    yield rate * weight * chance, (flag, *flags), (node, *parts)


def first_accepted(node: Node) -> Chosen:
    for x, flag, below in zip(node.tokens, node.accepted, node.below, strict=True):
        if flag:
            path, left = first_accepted(below)
            return (x, *path), left
    return (), node.left


def longest(node: Node) -> Chosen:
    best: Chosen = ((), node.left)
    for x, flag, below in zip(node.tokens, node.accepted, node.below, strict=True):
        path, left = longest(below)
        if flag and len(path) + 1 > len(best[0]):
            best = ((x, *path), left)
    return best


def emitted(
    p: Model, q: Model, widths: tuple[int, ...], omegas: tuple[Fraction, ...], choose: Callable[[Node], Chosen]
) -> dict[Context, Fraction]:
    """The law of the tokens that the round commits."""
    out: dict[Context, Fraction] = {}
    for weight, node in nodes(p, q, widths, omegas):
        path, left = choose(node)
        for x, w in enumerate(left):
            if w:
                out[*path, x] = out.get((*path, x), Fraction(0)) + weight * w
    return out


def window(p: Model, law: dict[Context, Fraction], length: int) -> dict[Context, Fraction]:
    """The law of the first `length` tokens; P continues what is shorter."""
    open_, out = law, dict[Context, Fraction]()
    while open_:
        grown: dict[Context, Fraction] = {}
        for tokens, weight in open_.items():
            if len(tokens) >= length:
                out[tokens[:length]] = out.get(tokens[:length], Fraction(0)) + weight
                continue
            for x, w in enumerate(p(tokens)):
                if w:
                    grown[*tokens, x] = grown.get((*tokens, x), Fraction(0)) + weight * w
        open_ = grown
    return out
