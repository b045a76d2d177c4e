"""Siblings at one node: the exact law and the form that takes uniforms, against an enumeration of its own; bugs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.arrays import Floats64
from coolsd_rt.law.exact import step_law
from coolsd_rt.law.residual import residual
from coolsd_rt.law.siblings import NO_TOKEN, judge_siblings, node_law, reject, remove_token, sibling_draws
from tests.law.drawn_trees import siblings
from tests.runtime.planting import plant

EDGE = 1e-9


@dataclass(frozen=True)
class Case:
    p: list[Fraction]
    q: list[Fraction]
    omega: Fraction
    count: int

    @property
    def floats(self) -> tuple[Floats64, Floats64, float]:
        return np.array([float(x) for x in self.p]), np.array([float(x) for x in self.q]), float(self.omega)


def weights(*numbers: int) -> list[Fraction]:
    return [Fraction(n, sum(numbers)) for n in numbers]


CASES = {
    "lossless": Case(weights(5, 2, 2, 1), weights(1, 4, 1, 2), Fraction(1), 3),
    "below one": Case(weights(5, 2, 2, 1), weights(1, 4, 1, 2), Fraction(1, 2), 2),
    "relaxed": Case(weights(1, 3, 4, 2), weights(6, 1, 1, 1), Fraction(3, 2), 3),
    "more siblings than Q has": Case(weights(1, 2, 3), weights(2, 1, 0), Fraction(1), 3),
    "no common support": Case(weights(1, 2, 0, 0), weights(0, 0, 1, 1), Fraction(2), 4),
}


@dataclass(frozen=True)
class Corner:
    """Siblings, their uniforms, and what must come of them: index of the accepted one (k: none) and P that is left."""

    tokens: tuple[int, ...]
    uniforms: tuple[float, ...]
    kept: int
    left: list[Fraction]


def corners(case: Case) -> Iterator[Corner]:
    """Every outcome that is possible, at both ends of each interval of uniforms that leads to it."""
    k = case.count
    for _, tokens, rates, left in siblings(case.p, case.q, case.omega, k):
        padding = (k - len(tokens),)
        for kept in (*range(len(tokens)), k):
            judged = rates[: kept + 1]
            boxes = [(rate, Fraction(1)) for rate in judged]
            if kept < k:
                boxes[kept] = (Fraction(0), judged[kept])
            if any(low == high for low, high in boxes):
                continue
            for upper in (False, True):
                ends = [float(high) - EDGE if upper else float(low) + EDGE for low, high in boxes]
                uniforms = (*ends, *(0.0,) * (k - len(ends)))  # a uniform that accepts, if it were looked at
                yield Corner(tokens + (NO_TOKEN,) * padding[0], uniforms, kept, left)


def holds(case: Case) -> bool:
    """Whether both forms say what the enumeration says."""
    p, q, omega = case.floats
    found = list(corners(case))
    tokens, uniforms = (np.array([getattr(c, name) for c in found]) for name in ("tokens", "uniforms"))
    try:
        verdict = judge_siblings(np.tile(p, (len(found), 1)), np.tile(q, (len(found), 1)), omega, tokens, uniforms)
    except (IndexError, ValueError, ZeroDivisionError):
        return False
    if verdict.kept.tolist() != [c.kept for c in found]:
        return False
    for corner, weights in zip(found, verdict.left, strict=True):
        left = weights / weights.sum()
        if corner.kept == case.count and not np.allclose(left, [float(x) for x in corner.left], atol=1e-12, rtol=0):
            return False
    accepted, after = exact_law(case)
    law = node_law(p, q, omega, case.count)
    return np.allclose(law.accepted, accepted, atol=1e-12, rtol=0) and np.allclose(law.after, after, atol=1e-12, rtol=0)


def exact_law(case: Case) -> tuple[Floats64, Floats64]:
    accepted = np.zeros((case.count, len(case.p)))
    after = np.zeros(len(case.p))
    for weight, tokens, rates, left in siblings(case.p, case.q, case.omega, case.count):
        open_ = weight
        for j, (x, rate) in enumerate(zip(tokens, rates, strict=True)):
            accepted[j, x] += float(open_ * rate)
            open_ *= 1 - rate
        after += [float(open_ * w) for w in left]
    return accepted, after


@pytest.mark.parametrize("name", list(CASES))
def test_both_forms_are_the_enumeration(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does planting as such break anything."""
    assert len(list(corners(CASES[name]))) >= 4
    assert holds(CASES[name])
    plant(monkeypatch, remove_token, lambda *args: remove_token(*args))
    plant(monkeypatch, reject, lambda *args: reject(*args))
    assert holds(CASES[name])


def test_draws_list_what_is_left_of_each() -> None:
    case = CASES["relaxed"]
    p, q, omega = case.floats
    found = {d.tokens: d for d in sibling_draws(p, q, omega, case.count)}
    for weight, tokens, rates, left in siblings(case.p, case.q, case.omega, case.count):
        drawn = found.pop(tokens)
        assert drawn.weight == pytest.approx(float(weight), abs=1e-14)
        assert drawn.rates == pytest.approx([float(rate) for rate in rates], abs=1e-12)
        np.testing.assert_allclose(drawn.left, [float(w) for w in left], atol=1e-12)
    assert not found


def distributions(size: int = 4) -> st.SearchStrategy[Floats64]:
    numbers = st.lists(st.integers(0, 7), min_size=size, max_size=size).filter(any)
    return numbers.map(lambda found: np.array(found, np.float64) / sum(found))


OMEGAS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@given(p=distributions(), q=distributions(), omega=OMEGAS, count=st.integers(1, 4))
def test_omega_at_most_one_is_lossless(p: Floats64, q: Floats64, omega: float, count: int) -> None:
    np.testing.assert_allclose(node_law(p, q, omega, count).token, p, atol=1e-12)


@given(p=distributions(), q=distributions(), omega=st.sampled_from([0.5, 1.0, 1.3, 4.0]), count=st.integers(1, 4))
def test_every_law_is_a_distribution_within_p(p: Floats64, q: Floats64, omega: float, count: int) -> None:
    law = node_law(p, q, omega, count)
    assert law.token.sum() == pytest.approx(1, abs=1e-12)
    assert (law.token[p == 0] == 0).all()
    assert law.rate >= node_law(p, q, omega, count - 1).rate - 1e-12 if count > 1 else True


@given(p=distributions(), q=distributions(), omega=st.sampled_from([0.5, 1.0, 1.3, 4.0]))
def test_one_sibling_is_the_rule_of_a_chain(p: Floats64, q: Floats64, omega: float) -> None:
    law, rate = step_law(p, q, omega, "optimal")
    found = node_law(p, q, omega, 1)
    np.testing.assert_allclose(found.token, law, atol=1e-12)
    assert found.rate == pytest.approx(rate, abs=1e-12)


def test_relaxation_is_biased_and_more_siblings_do_not_mend_it() -> None:
    p, q, omega = CASES["relaxed"].floats
    tv = [0.5 * float(np.abs(node_law(p, q, omega, k).token - p).sum()) for k in (1, 2, 3)]
    assert min(tv) > 0.01


def test_rows_have_omegas_of_their_own() -> None:
    case = CASES["relaxed"]
    p, q, _ = case.floats
    omegas = np.array([0.5, 1.0, 1.5, 4.0] * 50)
    rng = np.random.default_rng(0)
    tokens = np.argsort(rng.random((200, 4)), axis=1)[:, :3]
    uniforms = rng.random((200, 3))
    found = judge_siblings(np.tile(p, (200, 1)), np.tile(q, (200, 1)), omegas, tokens, uniforms)
    for row, omega in enumerate(omegas):
        alone = judge_siblings(p[None], q[None], float(omega), tokens[row, None], uniforms[row, None])
        assert alone.kept[0] == found.kept[row]
        np.testing.assert_array_equal(alone.left[0], found.left[row])
    assert len(set(found.kept.tolist())) == 4


def test_a_token_without_p_is_rejected_whatever_the_uniform() -> None:
    p, q, omega = CASES["no common support"].floats
    verdict = judge_siblings(p[None], q[None], omega, np.array([[3, 2, NO_TOKEN]]), np.zeros((1, 3)))
    assert verdict.kept.tolist() == [3]
    np.testing.assert_allclose(verdict.left, p[None])


def test_a_residual_without_mass_is_counted() -> None:
    """P = Q, and a draft that was rejected all the same: rounding of another machine's uniforms, say."""
    p = np.array([[0.5, 0.5], [0.5, 0.5]])
    verdict = judge_siblings(p, p, 1.0, np.array([[0], [NO_TOKEN]]), np.array([[1.0], [0.0]]))
    assert verdict.kept.tolist() == [1, 1]
    assert verdict.degenerate.tolist() == [True, False]
    np.testing.assert_array_equal(verdict.left, p)


# Bugs, each planted beneath both forms: the enumeration must notice every one.


def test_q_that_is_not_renormalised_among_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(q: Floats64, tokens: Any) -> Floats64:
        rest = q.copy()
        rest[np.arange(len(q)), tokens] = 0.0
        return rest

    plant(monkeypatch, remove_token, planted)
    assert not holds(CASES["lossless"])
    assert not holds(CASES["relaxed"])


def test_siblings_judged_as_if_drawn_with_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, remove_token, lambda q, tokens: q)
    assert not holds(CASES["lossless"])


def test_the_same_p_for_every_sibling(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(p: Any, q: Any, omega: Any, tokens: Any) -> Any:
        return (p, *reject(p, q, omega, tokens)[1:])

    plant(monkeypatch, reject, planted)
    assert not holds(CASES["lossless"])


def test_the_classic_residual_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(p: Any, q: Any, omega: Any, kind: Any) -> Any:
        return residual(p, q, 1.0, "residual")

    plant(monkeypatch, residual, planted)
    assert holds(CASES["lossless"])  # the same there
    assert not holds(CASES["below one"])


def test_omega_on_the_first_sibling_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: P is reduced as if omega were 1."""
    plant(monkeypatch, reject, lambda p, q, omega, tokens: reject(p, q, 1.0, tokens))
    assert holds(CASES["lossless"])
    assert not holds(CASES["below one"])


def test_what_the_rejected_token_alone_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: P without the rejected token, as for drafts that are not drawn."""

    def planted(p: Any, q: Any, omega: Any, tokens: Any) -> Any:
        return (remove_token(p, tokens), *reject(p, q, omega, tokens)[1:])

    plant(monkeypatch, reject, planted)
    assert not holds(CASES["lossless"])
