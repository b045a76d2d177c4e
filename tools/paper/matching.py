"""COOL-SD's own relaxed laws with a wanted accept length, on tiny worlds: what a rival's distance is compared with.

omega_i = 1 + beta * w_i with G*. For each shape w, beta is what brings the accept length to the wanted one. Uniform is
w_i = 1; "best" is the shape with the least TV, of uniform and a grid: all w whose entries are multiples of one step
and sum to 1. An accept length at or below the lossless one needs no relaxation.

Knows worlds and laws. Does not know rivals. Needs the extra measure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from coolsd_rt.law import Law, overlap
from coolsd_rt.law.comparison import Chain, RoundRule, RuleDistance, distance
from coolsd_rt.law.exact import mean_length
from coolsd_rt.law.tree import StaticTree
from tools.paper.tiny_worlds import TinyWorld

Omegas = tuple[float, ...]
MOST_BETA = 1e6
NEAR = 1e-7  # of an accept length


@dataclass(frozen=True)
class Matched:
    """The relaxed laws of one accept length. uniform: one omega. best: the least TV of all shapes."""

    accept_length: float
    uniform: RuleDistance
    best: RuleDistance


@dataclass(frozen=True)
class Peers:
    """The rounds that a rival is compared with: chains of drafts, or trees of the given widths.

    Trees are enumerated node by node, which is slow: their grid is coarser.
    """

    widths: tuple[int, ...] | None = None

    @property
    def steps(self) -> int:
        """Steps of the grid of shapes from 0 to 1."""
        return 4 if self.widths is None else 2

    def rule(self, omegas: Omegas) -> RoundRule:
        return Chain(Law(omegas)) if self.widths is None else StaticTree(self.widths, omegas)

    def accept_length(self, world: TinyWorld, omegas: Omegas) -> float:
        if self.widths is not None:
            return mean_length(self.rule(omegas).emitted(world.target, world.draft))
        reach, tokens = np.ones(1), 1.0
        for omega, p, q in zip(omegas, world.targets, world.drafts, strict=False):
            reach = (reach[:, None] * overlap(p, q, omega)).ravel()
            tokens += float(reach.sum())
        return tokens


def match(world: TinyWorld, peers: Peers, accept_length: float, length: int) -> Matched:
    """Find the relaxed laws of `length` positions that have an accept length."""
    found: list[RuleDistance] = []
    for shape in shapes(length, peers.steps):
        omegas = solve(world, peers, shape, accept_length)
        if omegas is not None or not found:  # uniform reaches nearly L + 1
            nearest = omegas or (1 + MOST_BETA,) * length
            found.append(distance(peers.rule(nearest), world.target, world.draft))
    return Matched(accept_length, found[0], min(found, key=lambda each: each.tv))


def shapes(length: int, steps: int) -> Iterator[Omegas]:
    """Yield the uniform shape, then the grid."""
    yield (1.0,) * length
    for parts in itertools.product(range(steps + 1), repeat=length):
        if sum(parts) == steps:
            yield tuple(part / steps for part in parts)


def solve(world: TinyWorld, peers: Peers, shape: Omegas, wanted: float) -> Omegas | None:
    """Return the omegas of a shape that have the accept length; None if the shape does not reach it."""

    def omegas(beta: float) -> Omegas:
        return tuple(1 + beta * w for w in shape)

    def lacking(beta: float) -> float:
        return peers.accept_length(world, omegas(beta)) - wanted

    if lacking(0.0) >= -NEAR:
        return omegas(0.0)
    high = 0.25
    while lacking(high) < 0:
        high *= 4
        if high > MOST_BETA:
            return None
    return omegas(float(brentq(lacking, 0.0, high, xtol=1e-9)))
