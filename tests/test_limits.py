"""Every number that a user or a file can give has two ends: of specs, sweeps and requests, whichever are added."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, InstanceOf

from coolsd_rt import limits
from coolsd_rt.errors import UserError
from coolsd_rt.ranges import Range
from coolsd_rt.spec import Spec
from coolsd_rt.spec.fields import _adapters
from coolsd_rt.spec.section import Within
from coolsd_rt.sweep.spec import SweepSpec

PACKAGE = Path(limits.__file__).parent
RANGES = {name: value for name, value in vars(limits).items() if isinstance(value, Range)}


def open_ends(node: Any, where: str = "") -> Iterator[str]:
    """Places of a JSON Schema with a number that lacks an end."""
    if isinstance(node, dict):
        listed = "const" in node or "enum" in node
        if node.get("type") in ("integer", "number") and not listed and not {"minimum", "maximum"} <= node.keys():
            yield where
        for key, value in node.items():
            yield from open_ends(value, f"{where}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from open_ends(value, f"{where}[{i}]")


@pytest.mark.parametrize("model", [Spec, SweepSpec])
def test_every_number_of_a_file_has_both_ends(model: type[BaseModel]) -> None:
    assert list(open_ends(model.model_json_schema())) == []


def test_a_number_that_is_added_without_an_end_is_found() -> None:
    class Planted(BaseModel):
        good: Annotated[int, Within(limits.SEED)] | None = None
        half: int = Field(ge=0)
        nested: tuple[Annotated[float, Field(le=1)], ...] | None = None

    found = list(open_ends(Planted.model_json_schema()))
    assert len(found) == 2
    assert ".half" in found[0]
    assert ".nested" in found[1]


def requests() -> list[type]:
    """Every dataclass that checks its own fields."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "export"):
            continue
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"^class (\w+)(?:(?!^class ).)*?^        check_fields\(self\)", text, re.M | re.S):
            module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            found.append(getattr(importlib.import_module(module), name))
    return found


def test_every_number_of_a_request_has_both_ends() -> None:
    classes = requests()
    rooms = {(cls.__module__.split(".")[1], cls.__name__) for cls in classes}
    assert {
        ("workflows", "GenerateConfig"),
        ("schedules", "RecordingConfig"),
        ("sweep", "SweepConfig"),
        ("train", "TrainConfig"),
    } <= rooms
    assert {"VariantChoice", "QualityMeasures", "PromptInputs", "DraftSizes"} <= {name for _, name in rooms}
    for cls in classes:
        hints = get_type_hints(cls, include_extras=True)
        for name, adapter in _adapters(cls).items():
            if InstanceOf not in map(type, getattr(hints[name], "__metadata__", ())):  # made and checked elsewhere
                assert list(open_ends(adapter.json_schema())) == [], f"{cls.__module__}.{cls.__name__}.{name}"


@pytest.mark.parametrize("name", RANGES)
def test_a_range_takes_its_ends_and_nothing_beyond(name: str) -> None:
    ends = RANGES[name]
    assert math.isfinite(ends.low) < math.isfinite(ends.high) + 1
    assert ends.low < ends.high
    step = 1 if ends.whole else math.ulp(ends.high)
    assert (ends.check("n", ends.low), ends.check("n", ends.high)) == (ends.low, ends.high)
    for beyond in (ends.low - step, ends.high + step, 10**400, -(10**400), math.inf, -math.inf, math.nan):
        with pytest.raises(UserError, match=re.escape(f"n: expected {ends.said}, found ")):
            ends.check("n", beyond)
    for other in (True, "1", None, b"1", [1], 1j):
        with pytest.raises(UserError, match=r"^n: expected a (whole )?number from"):
            ends.check("n", other)
    assert re.fullmatch(r"a (whole )?number from [-0-9.e^]+ to [0-9.e^]+(-1)?", ends.said)


@given(st.one_of(st.floats(), st.integers(), st.fractions(), st.booleans(), st.text(), st.none()))
def test_any_value_is_a_finite_number_in_the_range_or_one_line(value: Any) -> None:
    for ends in (limits.OMEGA, limits.SEED):
        found: Any = None
        said = ""
        try:
            found = ends.check("n", value)
        except UserError as error:
            said = str(error)
        if said:
            assert len(said) < 200
            assert "\n" not in said
        else:
            assert ends.low <= found <= ends.high
            assert type(found) is int if ends.whole else type(found) in (int, float)


def test_numbers_of_other_libraries_become_pythons() -> None:
    for number in (np.int64(3), np.uint8(3), 3):
        found = limits.SEED.check("seed", number)
        assert (found, type(found)) == (3, int)
    assert limits.OMEGA.check("delta", np.float32(1.5)) == 1.5
    assert limits.OMEGA.check("delta", Fraction(3, 2)) == 1.5
    for wrong in (np.float64(1.5), np.float32("nan"), np.array([1, 2]), np.bool_(True)):
        with pytest.raises(UserError, match=r"^seed: "):
            limits.SEED.check("seed", wrong)


def test_thousands_of_digits_are_said_in_a_line() -> None:
    with pytest.raises(UserError, match="found a number of thousands of digits"):
        limits.TOP_K.check("top_k", 10**5000)
