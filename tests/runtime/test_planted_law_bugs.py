"""Bugs in the arithmetic of the law itself, each planted beneath the loop: the enumeration must notice every one.

Those of the loop around it are in `test_planted_bugs`. Without a bug every world holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coolsd_rt.law import accepts, overlap, residual
from coolsd_rt.law.residual import water_level
from tests.runtime.fakes import Tables
from tests.runtime.planting import World, holds, plant, plant_in_arguments
from tests.runtime.tree import Method

NEAR = [[1, 2], [0, 2], [1, 0]]
RANDOM = Tables.random(3, 4, seed=3)
ZEROS = Tables.random(3, 4, seed=3, zeros=True)
CLASSIC = World(RANDOM, Method((1.0, 1.0)), 3, 4)
RELAXED = World(RANDOM, Method((1.4, 0.6)), 3, 4)
SPARSE = World(ZEROS, Method((1.4, 0.6)), 3, 4)
FILLED = World(RANDOM, Method((1.6, 1.3), "waterfill"), 3, 4)
LENT = World(RANDOM, Method((1.0, 1.0), lantern=("lantern_pp", 1.9, NEAR)), 3, 4)
ADDED = replace(LENT, method=Method((1.0, 1.0), lantern=("lantern", 0.3, NEAR)))
ALIKE = World(Tables(ZEROS.target[0], ZEROS.target[0]), Method((0.5, 0.5), "residual"), 3, 4)  # P = Q
WORLDS = {
    "classic": CLASSIC, "relaxed": RELAXED, "sparse": SPARSE, "filled": FILLED, "lantern_pp": LENT, "lantern": ADDED,
    "alike": ALIKE,
}  # fmt: skip


@pytest.mark.parametrize("name", list(WORLDS))
def test_without_a_bug_it_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does planting as such break anything."""
    assert holds(WORLDS[name])
    for real in (accepts, residual, overlap, water_level):
        plant_in_arguments(monkeypatch, real, lambda arguments: None)
    assert holds(WORLDS[name])


def test_a_uniform_draw_where_the_residual_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a rejection that leaves nothing to draw from is followed by any code, one without P included."""

    def planted(p: Any, *args: Any, **kwargs: Any) -> Any:
        weights, degenerate = residual(p, *args, **kwargs)
        return np.where(degenerate[..., None], 1.0, weights), degenerate

    plant(monkeypatch, residual, planted)
    assert not holds(ALIKE)
    assert holds(CLASSIC)  # no rejection there is empty


def test_an_empty_residual_drawn_from_its_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: no threshold of mass; where P and Q differ by rounding the rounding is drawn from."""

    def planted(p: Any, q: Any, omega: Any, kind: Any, borrowed: Any = 0.0, zeroed: Any = None) -> Any:
        weights = np.maximum(p - q, 0) + 1e-12 * (np.arange(p.shape[-1]) == 0)
        return weights, np.zeros(p.shape[:-1], bool)

    plant(monkeypatch, residual, planted)
    assert not holds(ALIKE)


def test_a_token_after_a_rejection_drawn_from_q(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the draft's own distribution stands in for the residual."""

    def planted(p: Any, q: Any, *args: Any, **kwargs: Any) -> Any:
        return q, np.zeros(p.shape[:-1], bool)

    plant(monkeypatch, residual, planted)
    assert not holds(CLASSIC)
    assert not holds(SPARSE)


def test_a_residual_that_is_not_cut_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: |P - Q| for [P - Q]_+."""

    def planted(p: Any, q: Any, *args: Any, **kwargs: Any) -> Any:
        return np.abs(p - q), np.zeros(p.shape[:-1], bool)

    plant(monkeypatch, residual, planted)
    assert not holds(CLASSIC)


def test_a_token_without_p_that_is_kept_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: u * Q <= omega * P. Any u above 0 is judged as before."""

    def planted(u: Any, p: Any, q: Any, omega: Any, borrowed: Any = 0.0) -> Any:
        return u * q <= omega * p + borrowed

    plant(monkeypatch, accepts, planted)
    assert not holds(SPARSE)
    assert holds(CLASSIC)  # every code there has P


@pytest.mark.parametrize("factor", [0.98, 1.02, np.inf])
def test_a_water_level_that_is_wrong(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: two per cent too low or too high; or never below 1, which is G*."""

    def planted(p: Any, accepted: Any) -> Any:
        return np.minimum(1.0, factor * water_level(p, accepted))

    plant(monkeypatch, water_level, planted)
    assert not holds(FILLED)


def test_a_water_level_of_the_lowest_ratio_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: all of the mass goes to the code that lacks most, even if it then stands above the others."""

    def planted(p: Any, accepted: Any) -> Any:
        ratio = np.where(p > 0, accepted / np.where(p > 0, p, 1), np.inf)
        lowest = ratio == ratio.min(-1, keepdims=True)
        mass = (p - accepted).sum(-1, keepdims=True) + (accepted * lowest).sum(-1, keepdims=True)
        return np.minimum(1.0, mass / (p * lowest).sum(-1, keepdims=True))

    plant(monkeypatch, water_level, planted)
    assert not holds(FILLED)


@pytest.mark.parametrize("name", ["lantern", "lantern_pp"])
def test_neighbours_that_include_the_code_itself(name: str) -> None:
    """Planted: the nearest code to x is x, so that P(x) is borrowed on top of P(x)."""
    world = WORLDS[name]
    tolerance = world.law.tolerance
    assert tolerance is not None
    itself = np.column_stack([np.arange(3), tolerance.near])
    assert not holds(world, replace(world.law, tolerance=replace(tolerance, near=itself)))


def test_neighbours_of_the_wrong_code() -> None:
    """Planted: the table of neighbours is shifted by a row."""
    tolerance = LENT.law.tolerance
    assert tolerance is not None
    shifted = np.roll(tolerance.near, 1, axis=0)
    assert not holds(LENT, replace(LENT.law, tolerance=replace(tolerance, near=shifted)))


def test_a_bound_of_the_other_rule() -> None:
    """Planted: what may be borrowed is a multiple of P(x) where it is a number, and the other way round."""
    for world, kind, bound in ((LENT, "lantern", 0.9), (ADDED, "lantern_pp", 1.3)):
        tolerance = world.law.tolerance
        assert tolerance is not None
        other = replace(tolerance, kind=kind, bound=bound)  # type: ignore[arg-type]
        assert not holds(world, replace(world.law, tolerance=other))


def test_an_overlap_that_forgets_omega(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: G* of min(Q, P). Acceptance is right, the residual is the classic one."""

    def change(arguments: dict[str, Any]) -> None:
        arguments["omega"] = 1.0

    plant_in_arguments(monkeypatch, overlap, change)
    assert not holds(RELAXED)
