"""Tiny targets and drafts of chosen quality, whose laws can be enumerated: a few codes, a few tokens.

P after each context is the softmax of standard normal logits divided by a temperature. Q is the softmax of the same
logits with noise, as much as brings the mean TV(P, Q) over all contexts to the wanted value. Everything follows from
the seed. Knows NumPy. Does not know rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from coolsd_rt.arrays import Floats64, Ints
from coolsd_rt.law import nearest_codes
from coolsd_rt.law.exact import Context

LENGTH = 3
CODES = (3, 4, 5)
TEMPERATURES = (1.0, 0.5)
DISTANCES = (0.1, 0.2, 0.3, 0.4)
SEEDS = (0, 1)


@dataclass(frozen=True, eq=False)
class TinyWorld:
    """codes: V. distance: mean TV(P, Q) over contexts. near: the other codes of each code, nearest first, [V, V - 1].

    targets, drafts: P and Q by number of tokens before, [V^n, V] for n = 0 .. L; contexts in the order of counting.
    """

    codes: int
    temperature: float
    distance: float
    seed: int
    targets: tuple[Floats64, ...]
    drafts: tuple[Floats64, ...]
    near: Ints

    @property
    def name(self) -> str:
        return f"V {self.codes}, temperature {self.temperature:g}, TV(P, Q) {self.distance:g}, seed {self.seed}"

    def target(self, context: Context) -> Floats64:
        """P after a context."""
        return self._row(self.targets, context)

    def draft(self, context: Context) -> Floats64:
        """Q after a context."""
        return self._row(self.drafts, context)

    def _row(self, tables: tuple[Floats64, ...], context: Context) -> Floats64:
        row = 0
        for token in context:
            row = row * self.codes + token
        return np.asarray(tables[len(context)][row])


def worlds() -> Iterator[TinyWorld]:
    """The common set."""
    for codes, temperature, distance, seed in itertools.product(CODES, TEMPERATURES, DISTANCES, SEEDS):
        yield make_world(codes, temperature, distance, seed)


def make_world(codes: int, temperature: float, distance: float, seed: int, length: int = LENGTH) -> TinyWorld:
    """Make the world of a seed. distance: wanted mean TV(P, Q), below 1 - 1 / codes."""
    rng = np.random.default_rng([seed, codes, round(100 * temperature)])
    sizes = [codes**n for n in range(length + 1)]
    logits = rng.standard_normal((sum(sizes), codes)) / temperature
    noise = rng.standard_normal(logits.shape)
    p, low, high = _softmax(logits), 0.0, 1e3
    for _ in range(80):
        middle = (low + high) / 2
        if 0.5 * np.abs(p - _softmax(logits + middle * noise)).sum(-1).mean() < distance:
            low = middle
        else:
            high = middle
    cuts = np.cumsum(sizes)[:-1]
    targets, drafts = (tuple(np.split(laws, cuts)) for laws in (p, _softmax(logits + high * noise)))
    near = nearest_codes(rng.standard_normal((codes, 2)), codes - 1)
    return TinyWorld(codes, temperature, distance, seed, targets, drafts, near)


def _softmax(logits: Floats64) -> Floats64:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True), np.float64)
