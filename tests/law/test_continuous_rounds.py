"""Rounds of two continuous tokens with the real sampler, on the two-step heads: the joint law, with stated power.

Rosenblatt's transform: U = F(x1) and V = F(x2 | x1), with the target's distribution functions by quadrature over w, are
independent and uniform under the target's joint law. Pairs are counted in 5 x 5 cells, and chi-square is compared with
its quantile at a false alarm of 1e-3. A law at a total variation of .005 between the cells has a noncentrality of n
times 4 * .005^2 or more: 50 at n = 500,000, which is found with probability .937.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from coolsd_rt.arrays import Bools, Floats64, Ints
from coolsd_rt.law.continuous import LastStep, verify_position
from coolsd_rt.law.continuous.quadrature import Nodes
from tests.law.continuous_heads import DRAFTS, TARGET
from tools.paper.two_steps import TwoSteps

DRAWS, CELLS, TV = 500_000, 5, 0.005
LIMIT = float(stats.chi2.isf(1e-3, CELLS**2 - 1))


class Round:
    """Draws of many rounds at once. forgetful: a bug, the second token's condition ignores the first."""

    def __init__(self, draft: TwoSteps, seed: int, forgetful: bool = False) -> None:
        self.draft, self._rng, self._forgetful = draft, np.random.default_rng(seed), forgetful
        self.accepted, self.fallbacks = 0, 0

    def _numbers(self, rows: Ints, attempt: int) -> tuple[Floats64, Floats64]:
        return self._rng.standard_normal((len(rows), 1)), self._rng.random(len(rows))

    def _last(self, model: TwoSteps, first: Floats64, w: Floats64) -> LastStep:
        """The last step under the condition that the first token gives, a row each."""
        shifted = replace(model, z=model.z + np.tanh(first))  # type: ignore[arg-type]
        return LastStep(shifted.last_mean(w)[:, None], np.full(len(w), model.last))

    def token(self, first: Floats64, omega: float) -> tuple[Floats64, Bools]:
        """A position: draft, target and verdict under one noise w. first: what the condition depends on, [n]."""
        w = self._rng.standard_normal(len(first))
        q = self._last(self.draft, first, w)
        x = q.at(self._rng.standard_normal((len(first), 1)))
        p = self._last(TARGET, first, w)
        found = verify_position(x, p, q, omega, self._rng.random((len(first), 2)), self._numbers)
        self.fallbacks += int(found.fallback.sum())
        return found.tokens[:, 0], found.accepted

    def pairs(self, count: int, omegas: tuple[float, float]) -> tuple[Floats64, Floats64, float]:
        """Two tokens: the second by the round's second position if the first was kept, else by a new round's first."""
        first, accepted = self.token(np.zeros(count), omegas[0])
        after = np.zeros(count) if self._forgetful else first
        second = np.empty(count)
        for omega, rows in ((omegas[1], accepted), (omegas[0], ~accepted)):
            second[rows] = self.token(after[rows], omega)[0]
        return first, second, float(accepted.mean())


def distribution(x: Floats64, first: Floats64) -> Floats64:
    """F(x | first) of the target, row by row."""
    nodes = Nodes.normal(4, 12, 6.0)  # to 1e-6
    shifted = replace(TARGET, z=TARGET.z + np.tanh(first))  # type: ignore[arg-type]
    out = np.zeros(len(x))
    for value, weight in zip(nodes.points, nodes.weights, strict=True):
        out += weight * special.ndtr((x - shifted.last_mean(np.full(len(x), value))) / TARGET.last)
    return out


def chi_square(first: Floats64, second: Floats64) -> float:
    cells = [
        (np.clip(u, 0, 1 - 1e-12) * CELLS).astype(int)
        for u in (distribution(first, np.zeros(len(first))), distribution(second, first))
    ]
    counts = np.bincount(cells[0] * CELLS + cells[1], minlength=CELLS**2)
    expected = len(first) / CELLS**2
    return float(((counts - expected) ** 2).sum() / expected)


def test_the_power_is_as_stated() -> None:
    assert stats.ncx2.sf(LIMIT, CELLS**2 - 1, DRAWS * 4 * TV**2) > 0.93


@pytest.mark.parametrize("name", ["equal deviations", "a narrower draft"])
def test_two_tokens_have_the_targets_joint_law(name: str) -> None:
    rounds = Round(DRAFTS[name], seed=8)
    first, second, accepted = rounds.pairs(DRAWS, (1.0, 0.9))
    assert 0.3 < accepted < 0.8
    assert rounds.fallbacks == 0
    assert chi_square(first, second) < LIMIT


@pytest.mark.parametrize(("omegas", "forgetful"), [((1.15, 1.0), False), ((1.0, 1.15), False), ((1.0, 1.0), True)])
def test_relaxed_tokens_and_a_forgotten_condition_are_seen(omegas: tuple[float, float], forgetful: bool) -> None:
    """A relaxed first or second position; and a second token whose condition ignores the first."""
    first, second, _ = Round(DRAFTS["a wider draft"], 8, forgetful).pairs(DRAWS // 2, omegas)
    assert chi_square(first, second) > LIMIT
