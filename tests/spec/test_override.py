"""Values from the command line go through the same models, and errors name the flag."""

from __future__ import annotations

from typing import Any

import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.spec import Spec, SpecError, with_overrides
from tests.spec.test_model import good


def changed(**schedule: Any) -> Spec:
    return Spec.model_validate(good() | {"schedule": schedule})


BASE = changed(kind="exponential", delta=1.1, nu=0.5, floor=0.5)


def test_values_are_replaced_and_the_rest_stays() -> None:
    spec = with_overrides(BASE, {"schedule.delta": 2.0, "sampling.top_k": 7})
    assert spec.resolved()["schedule"] == {"kind": "exponential", "delta": 2.0, "nu": 0.5, "floor": 0.5}
    assert spec.sampling.top_k == 7
    assert spec.build_view() == BASE.build_view()
    assert with_overrides(BASE, {}) == BASE
    assert with_overrides(BASE, {"schedule.kind": "exponential"}) == BASE


def test_another_kind_keeps_delta_only() -> None:
    assert with_overrides(BASE, {"schedule.kind": "uniform"}).schedule == changed(kind="uniform", delta=1.1).schedule
    assert with_overrides(BASE, {"schedule.kind": "linear"}).schedule == changed(kind="linear", delta=1.1).schedule
    assert with_overrides(BASE, {"schedule.kind": "none"}).schedule == changed(kind="none").schedule
    both = with_overrides(BASE, {"schedule.delta": 1.7, "schedule.kind": "uniform"})
    assert both.schedule == changed(kind="uniform", delta=1.7).schedule


def test_a_rule_with_its_own_relaxation_replaces_the_schedule() -> None:
    lantern = {"acceptance.rule": "lantern", "acceptance.bound": 0.1, "acceptance.neighbours": 3}
    spec = with_overrides(BASE, lantern)
    assert spec.schedule.kind == "none"
    other = with_overrides(spec, {"acceptance.rule": "lantern_pp", "acceptance.factor": 2.0})
    assert other.resolved()["acceptance"] == {"rule": "lantern_pp", "factor": 2.0, "neighbours": 3}
    assert with_overrides(other, {"acceptance.rule": "ratio", "schedule.kind": "uniform", "schedule.delta": 1.5})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"schedule.delta": -1.0}, r"^--delta: expected a number from 0 to 1e6, found -1.0$"),
        ({"schedule.delta": float("nan")}, r"^--delta: expected a number from 0 to 1e6, found NaN$"),
        ({"schedule.kind": "unifrm"}, r"^--schedule: expected one of exponential.*did you mean 'uniform'\?$"),
        (
            {"schedule.kind": "none", "schedule.delta": 1.0},
            r"^--delta: expected no such option with the schedule 'none'",
        ),
        (
            {"schedule.kind": "custom"},
            r"^--values: expected a value \(the schedule 'custom' needs one\), found nothing",
        ),
        ({"sampling.cfg_scale": 0.0}, r"^--cfg-scale: expected a number from 1 to 1000"),
        (
            {"acceptance.rule": "lantern", "acceptance.bound": 0.1},
            r"^--neighbours: expected a value \(the rule 'lantern'",
        ),
        ({"acceptance.bound": 0.1}, r"^--bound: expected no such option with the rule 'ratio'"),
        (
            {"acceptance.rule": "lantern", "acceptance.bound": 0.1, "acceptance.neighbours": 3, "schedule.delta": 1.2},
            r"^--rule: expected the schedule none",
        ),
        ({"resampler.kind": "optimum"}, r"^--resampler: expected one of .*did you mean 'optimal'\?$"),
    ],
)
def test_errors_name_the_flag(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        with_overrides(BASE, overrides)


def test_names_of_flags_can_be_given() -> None:
    with pytest.raises(SpecError, match=r"^--relax: expected a number from 0 to 1e6"):
        with_overrides(BASE, {"schedule.delta": -1.0}, {"schedule.delta": "--relax"})


@pytest.mark.parametrize("key", ["draft.length", "engine.precision", "name", "schedule", "schedule.values.0"])
def test_only_run_time_keys(key: str) -> None:
    with pytest.raises(UserError, match="expected a key of schedule, resampler, acceptance, sampling"):
        with_overrides(BASE, {key: 1})
