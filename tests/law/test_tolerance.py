"""LANTERN's rules: neighbours, what may be borrowed, and the laws that follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.arrays import Floats64
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Tolerance, exact, nearest_codes
from coolsd_rt.law.exact import step_law
from coolsd_rt.law.tolerance import Kind
from tests.law.test_rules import distributions, tv
from tests.ops.libraries import LIBRARIES, host

NEAR = np.array([[1, 2, 3], [0, 2, 4], [3, 1, 0], [2, 4, 1], [3, 2, 0]])
LEND = 2  # of three columns: LANTERN's own residual reads one more than may lend
KINDS: list[tuple[Kind, float]] = [("lantern", 0.0), ("lantern", 0.2), ("lantern_pp", 1.0), ("lantern_pp", 1.8)]


def literal(kind: str, bound: float, p: Floats64, x: int) -> float:
    """The method's own words, one code at a time."""
    total, best = 0.0, 0.0
    for y in NEAR[x, :LEND]:
        total += p[y]
        if total <= (bound if kind == "lantern" else (bound - 1) * p[x]):
            best = total
    return best


@pytest.mark.parametrize("library", list(LIBRARIES))
@pytest.mark.parametrize(("kind", "bound"), KINDS)
def test_what_is_borrowed(kind: Kind, bound: float, library: str) -> None:
    to = LIBRARIES[library]
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(5, 0.5), size=(40, 3))
    tolerance = Tolerance(kind, bound, to(NEAR), LEND)
    tokens = rng.integers(0, 5, (40, 3))
    expected = [
        [literal(kind, bound, row, x) for row, x in zip(a, b, strict=True)] for a, b in zip(p, tokens, strict=True)
    ]
    np.testing.assert_allclose(host(tolerance.borrowed(to(p), to(tokens))), expected)
    whole = [[[literal(kind, bound, row, x) for x in range(5)] for row in a] for a in p]
    np.testing.assert_allclose(host(tolerance.everywhere(to(p))), whole)
    zeroed = host(tolerance.zeroed(to(p[:, 0]), to(tokens[:, 0])))
    for row, x, mask in zip(p[:, 0], tokens[:, 0], zeroed, strict=True):
        lent = row[NEAR[x, 0]] <= (bound if kind == "lantern" else (bound - 1) * row[x])
        assert set(np.flatnonzero(mask)) == (set(NEAR[x]) if lent else set())


@given(p=distributions(), q=distributions(), bound=st.floats(1, 4))
def test_the_multiplicative_rule_never_leaves_the_support_of_p(p: Floats64, q: Floats64, bound: float) -> None:
    law, _ = step_law(p, q, 1.0, "optimal", Tolerance("lantern_pp", bound, NEAR, LEND))
    assert law[p == 0].sum() < 1e-12
    assert law.sum() == pytest.approx(1.0)


def test_the_additive_rule_can_leave_it() -> None:
    p, q = np.array([0.0, 0.1, 0.2, 0.3, 0.4]), np.array([1.0, 0.0, 0.0, 0.0, 0.0])
    law, rate = step_law(p, q, 1.0, "optimal", Tolerance("lantern", 0.1, NEAR))
    assert law[0] == rate == pytest.approx(0.1)


@given(p=distributions(), q=distributions())
def test_without_a_bound_both_are_lossless(p: Floats64, q: Floats64) -> None:
    for kind, bound in (("lantern", 0.0), ("lantern_pp", 1.0)):
        law, _ = step_law(p, q, 1.0, "optimal", Tolerance(kind, bound, NEAR, LEND))  # type: ignore[arg-type]
        assert tv(law, p) < 1e-5  # the degenerate case stops there


def test_the_optimal_residual_is_nearest_to_p_and_lanterns_own_is_not() -> None:
    rng = np.random.default_rng(3)
    codebook = rng.standard_normal((64, 4))
    tolerance = Tolerance("lantern_pp", 1.5, nearest_codes(codebook, 11), 10)
    found: dict[str, list[float]] = {"optimal": [], "waterfill": [], "lantern": []}
    for _ in range(20):
        p, q = rng.dirichlet(np.full(64, 0.4), size=2)
        q = 0.7 * p + 0.3 * q
        for kind, distances in found.items():
            distances.append(tv(step_law(p, q, 1.0, kind, tolerance)[0], p))  # type: ignore[arg-type]
    means = {kind: float(np.mean(d)) for kind, d in found.items()}
    assert means["optimal"] == pytest.approx(means["waterfill"], abs=1e-12)
    assert means["lantern"] > 1.2 * means["optimal"] > 0


def test_neighbours_are_the_nearest_others() -> None:
    rng = np.random.default_rng(1)
    codebook = rng.standard_normal((50, 3))
    near = nearest_codes(codebook, 7)
    for x, row in enumerate(near):
        distance = np.linalg.norm(codebook - codebook[x], axis=1)
        distance[x] = np.inf
        assert row.tolist() == np.argsort(distance)[:7].tolist()
    twins = nearest_codes(np.zeros((4, 2)), 3)  # ties by index, never itself
    assert twins.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


@pytest.mark.parametrize(
    ("kind", "bound", "near", "k"),
    [
        ("lantern", -0.1, NEAR, 1), ("lantern", 1.1, NEAR, 1), ("lantern", np.nan, NEAR, 1),
        ("lantern_pp", 0.9, NEAR, 1), ("lantern_pp", np.inf, NEAR, 1), ("lantern_pp", 1e300, NEAR, 1),
        ("lantern", 0.1, NEAR[:, :0], 1), ("lantern", 0.1, NEAR[0], 1), ("lantern", 0.1, NEAR, 0),
        ("lantern", 0.1, NEAR, 4),
    ],
)  # fmt: skip
def test_bad_values_are_refused(kind: Any, bound: float, near: Any, k: int) -> None:
    with pytest.raises(UserError, match="expected"):
        Tolerance(kind, bound, near, k)
    for k in (0, 5):
        with pytest.raises(UserError, match="1 to 4"):
            nearest_codes(np.zeros((5, 2)), k)


def test_laws_that_do_not_fit_together_are_refused() -> None:
    tolerance = Tolerance("lantern", 0.1, NEAR)
    assert Law((1.0, 1.0), tolerance=tolerance).rule == "lantern"
    assert Law((1.0,), "target", rates=(0.5,)).rule == "synthetic"
    Law((1.0,), "lantern", Tolerance("lantern", 0.1, NEAR, 2))
    Law((1.0,), "lantern", Tolerance("lantern", 0.1, np.array([[1, 2], [0, 2], [1, 0]])))  # all other codes
    wrong: list[Callable[[], Law]] = [
        lambda: Law((1.2, 1.0), tolerance=tolerance),
        lambda: Law((1.0,), "lantern"),
        lambda: Law((1.0,), "target", rates=(0.5, 0.5)),
        lambda: Law((1.0,), "target", rates=(1.5,)),
        lambda: Law((1.0,), "optimal", rates=(0.5,)),
        lambda: Law((1.0,), "target", tolerance, rates=(0.5,)),
        lambda: Law((1.0,), "lantern", tolerance),  # all three columns lend: there is none more to read
        lambda: Law((1.0,), "lantern", Tolerance("lantern", 0.1, NEAR[:, :2], 2)),
    ]
    for bad in wrong:
        with pytest.raises(UserError):
            bad()


def test_synthetic_rates_are_the_acceptance_and_the_rest_is_p() -> None:
    p, q = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    law = Law((1.0, 1.0), "target", rates=(0.6, 0.2))
    assert exact.accept_length(lambda _: p, lambda _: q, law) == pytest.approx(1 + 0.6 + 0.6 * 0.2)
    first = exact.round_law(lambda _: p, lambda _: q, Law((1.0,), "target", rates=(0.6,)))
    assert sum(w for tokens, w in first.items() if tokens[0] == 0) == pytest.approx(0.6 * 0.9 + 0.4 * 0.5)
