"""Schedules against the figures of the method's own page, and what they refuse."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Schedule, make_omegas
from coolsd_rt.law.schedule import exponential, linear, raised
from coolsd_rt.limits import DECAY, LAW_OMEGA, OMEGA
from coolsd_rt.ops import verify

FAMILIES: list[Schedule] = ["exponential", "linear", "uniform"]


@pytest.mark.parametrize(
    ("delta", "digits", "oracle"),
    [(1.1, 3, [2.855, 1.418, 0.704, 0.350, 0.174]), (2.0, 2, [5.19, 2.58, 1.28, 0.64, 0.32])],
)
def test_exponential_matches_the_oracle(delta: float, digits: int, oracle: list[float]) -> None:
    assert [round(w, digits) for w in exponential(5, delta)] == oracle


@given(kind=st.sampled_from(FAMILIES), length=st.integers(1, 64), delta=st.floats(0, 100))
def test_every_family_has_mean_delta_and_does_not_rise(kind: Schedule, length: int, delta: float) -> None:
    omegas = make_omegas(kind, length, delta=delta)
    assert math.fsum(omegas) / length == pytest.approx(delta, rel=1e-14, abs=1e-300)
    assert all(a >= b for a, b in itertools.pairwise(omegas))


def test_ratio_of_neighbours_is_exp_minus_nu() -> None:
    omegas = exponential(8, 1.3, nu=0.4)
    assert [b / a for a, b in itertools.pairwise(omegas)] == pytest.approx([math.exp(-0.4)] * 7, rel=1e-14)


def test_exponential_survives_long_windows() -> None:
    omegas = exponential(2000, 1.1, nu=5.0)
    assert omegas[0] == pytest.approx(2000 * 1.1 * (1 - math.exp(-5.0)))
    assert omegas[-1] == 0.0
    assert all(math.isfinite(w) for w in omegas)


def test_linear_falls_in_equal_steps_towards_zero() -> None:
    assert linear(5, 1.5) == pytest.approx([2.5, 2.0, 1.5, 1.0, 0.5])


def test_none_is_one_and_custom_is_itself() -> None:
    assert make_omegas("none", 3) == (1.0, 1.0, 1.0)
    assert make_omegas("custom", 2, values=[1.2, 0.5]) == (1.2, 0.5)
    assert make_omegas("uniform", 0, delta=2.0) == ()


@given(length=st.integers(1, 30), beta=st.floats(0, 50), nu=st.floats(0, 5))
def test_excess_falls_towards_one_and_never_below(length: int, beta: float, nu: float) -> None:
    omegas = make_omegas("excess", length, beta=beta, nu=nu)
    assert omegas[0] == 1 + beta
    assert min(omegas) >= 1
    assert [w - 1 for w in omegas] == pytest.approx([beta * math.exp(-nu * i) for i in range(length)], abs=1e-12)
    assert make_omegas("excess", length, beta=beta, nu=0.0) == make_omegas("uniform", length, delta=1 + beta)


def test_floor_raises_what_is_below_and_nothing_else() -> None:
    plain = exponential(5, 1.1)
    assert raised(plain, 1.0) == make_omegas("exponential", 5, delta=1.1, floor=1.0) == (*plain[:2], 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("exponential", {"delta": math.nan}),
        ("exponential", {"delta": -0.1}),
        ("exponential", {"delta": math.inf}),
        ("exponential", {"nu": math.nan}),
        ("exponential", {"nu": -1.0}),
        ("linear", {"delta": -1.0}),
        ("uniform", {"delta": math.nan}),
        ("uniform", {"floor": -1.0}),
        ("uniform", {"floor": math.nan}),
        ("excess", {"beta": -0.1}),
        ("excess", {"beta": math.nan}),
        ("excess", {"beta": 1.0, "nu": -1.0}),
        ("custom", {}),
        ("custom", {"values": [1.0]}),
        ("custom", {"values": [1.0, math.nan]}),
        ("custom", {"values": [1.0, -1.0]}),
        ("cosine", {}),
        ("exponential", {"delta": 1e308}),
        ("exponential", {"nu": 1e308}),
        ("exponential", {"floor": 1e308}),
        ("linear", {"delta": 1e39}),
        ("linear", {"floor": 1e39}),
        ("uniform", {"delta": 2e6}),
        ("excess", {"beta": 1e308}),
        ("custom", {"values": [1.0, 1e39]}),
    ],
)
def test_bad_values_are_refused(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected"):
        make_omegas(kind, 2, **settings)


@given(
    kind=st.sampled_from(FAMILIES),
    length=st.integers(1, 2000),
    delta=st.floats(0, OMEGA.high),
    nu=st.floats(0, DECAY.high),
    floor=st.none() | st.floats(0, OMEGA.high),
)
def test_every_schedule_of_numbers_in_range_is_a_law(
    kind: Schedule, length: int, delta: float, nu: float, floor: float | None
) -> None:
    Law(make_omegas(kind, length, delta=delta, nu=nu, floor=floor))
    Law(make_omegas("excess", length, beta=delta, nu=nu))


@pytest.mark.filterwarnings("error")
def test_the_largest_omega_keeps_whatever_has_probability() -> None:
    """In float32 nothing overflows, and no logits are blamed."""
    p, q = np.array([[1e-6, 0.0, 1.0 - 1e-6]], np.float32), np.array([[0.5, 0.5, 0.0]], np.float32)
    for resampler in ("optimal", "waterfill"):
        for x, kept in ((0, 1), (1, 0)):
            verdict = verify(
                np.stack([p, p], 1),
                q[:, None],
                np.array([[x]]),
                np.array([1]),
                np.array([LAW_OMEGA.high]),
                np.array([[0.999]]),
                np.array([[0.5, 0.5]]),
                resampler,
            )
            assert verdict.accepted.tolist() == [kept]


def test_negative_length_is_refused() -> None:
    with pytest.raises(UserError, match="draft length"):
        make_omegas("none", -1)


@pytest.mark.parametrize(
    "settings",
    [
        {"omegas": (math.nan,)},
        {"omegas": (math.inf,)},
        {"omegas": (1.0, 3.5e38)},
        {"omegas": (1e13,)},
        {"omegas": (-1.0,)},
        {"omegas": (), "resampler": "uniform"},
        {"omegas": (1.0,), "resampler": "target", "rates": (2.0,)},
    ],
)
def test_a_law_refuses_what_is_not_one(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Law(**settings)
