"""What is build-time and what is run-time, round trips, and the schema that editors use."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from coolsd_rt.spec import Spec, condition, load_spec
from coolsd_rt.spec import model as spec_model
from coolsd_rt.spec.model import BUILD_TIME, FILE_KEYS, RUN_TIME
from coolsd_rt.spec.schema import schema_text
from coolsd_rt.spec.yaml_text import parse
from tests.spec.conftest import GOOD

PIPELINES = Path(__file__).parents[2] / "pipelines"


def good() -> dict[str, Any]:
    data: dict[str, Any] = parse(GOOD.encode()).data
    return data


@functools.cache
def validator() -> Any:
    """Of the schema, which is made and checked once."""
    schema = json.loads(schema_text())
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


def test_every_section_is_build_time_or_run_time() -> None:
    assert set(Spec.model_fields) == {"version", "name", *BUILD_TIME, *RUN_TIME, "sources"}
    assert not set(BUILD_TIME) & set(RUN_TIME)


def test_views() -> None:
    spec = Spec.model_validate(good())
    assert set(spec.run_view()) == set(RUN_TIME)
    assert set(spec.build_view()) == set(BUILD_TIME) - {"text"}  # it draws images
    assert "weights" not in json.dumps(spec.build_view())
    assert list(spec.file_names()) == [key for key in FILE_KEYS if key in spec.file_names()]
    assert set(spec.file_names()) == {"target.weights", "draft.weights", "image.weights", "condition.vocab"}
    assert spec.build_view()["draft"] == {"model": "eagle", "length": 5}


numbers = st.floats(0, 100)
floors = st.none() | numbers
schedules = st.one_of(
    st.fixed_dictionaries(
        {"kind": st.just("exponential"), "delta": numbers}, optional={"nu": numbers, "floor": floors}
    ),
    st.fixed_dictionaries({"kind": st.just("linear"), "delta": numbers}, optional={"floor": floors}),
    st.fixed_dictionaries({"kind": st.just("uniform"), "delta": numbers}, optional={"floor": floors}),
    st.fixed_dictionaries({"kind": st.just("excess"), "beta": numbers}, optional={"nu": numbers}),
    st.just({"kind": "none"}),
    st.fixed_dictionaries({"kind": st.just("custom"), "values": st.lists(numbers, min_size=5, max_size=5)}),
)


@settings(max_examples=50)
@given(schedules, st.floats(1, 20), st.integers(0, 20000))
def test_resolved_is_a_fixed_point_and_satisfies_the_schema(schedule: dict[str, Any], cfg: float, k: int) -> None:
    data = good() | {"schedule": schedule, "sampling": {"cfg_scale": cfg, "top_k": k}}
    validator().validate(data)
    spec = Spec.model_validate(data)
    again = Spec.model_validate(json.loads(json.dumps(spec.resolved())))
    assert again == spec
    assert again.resolved() == spec.resolved()
    validator().validate(spec.resolved())


def test_floor_defaults() -> None:
    def floor(**schedule: Any) -> float | None:
        resolved: dict[str, Any] = Spec.model_validate(good() | {"schedule": schedule}).resolved()["schedule"]
        value: float | None = resolved["floor"]
        return value

    assert floor(kind="exponential", delta=1.1) == 1.0
    assert floor(kind="exponential", delta=1.1, floor=None) is None
    assert floor(kind="linear", delta=1.1) == 1.0
    assert floor(kind="uniform", delta=1.1) is None
    assert floor(kind="custom", values=[1.0] * 5) is None


CONDITIONS: list[dict[str, Any]] = [
    {"kind": "class"},
    {"kind": "class", "classes": 10, "labels": "l.txt"},
    {"kind": "t5", "encoder": "google/flan-t5-xl", "revision": "0" * 40},
    {"kind": "t5", "folder": "t5", "precision": "fp32", "length": 77},
    {"kind": "t5", "features": "f.safetensors"},
    {"kind": "tokens", "layout": "lumina", "tokenizer": "t.json", "width": 768, "height": 512},
    {"kind": "tokens", "layout": "lumina", "tokenizer": "t.json", "width": 32, "height": 32,
     "template": "{width} {prompt}"},
    {"kind": "tokens", "layout": "anole", "tokenizer": "t.json"},
    {"kind": "tokens", "layout": "janus", "tokenizer": "t.json", "length": 64, "template": "{prompt}!"},
]  # fmt: skip


@pytest.mark.parametrize("keys", CONDITIONS)
def test_every_condition_is_taken_back_as_it_is_resolved(keys: dict[str, Any]) -> None:
    """`resolved` is what an engine's manifest holds of it."""
    data = good() | {"condition": keys}
    validator().validate(data)
    spec = Spec.model_validate(data)
    resolved = spec.resolved()
    assert resolved["condition"].items() >= keys.items()
    validator().validate(resolved)
    assert Spec.model_validate(json.loads(json.dumps(resolved))) == spec


def test_a_spec_cannot_be_changed() -> None:
    spec = Spec.model_validate(good())
    with pytest.raises(ValidationError):
        spec.draft.length = 9  # type: ignore[misc]


def test_schema_is_current() -> None:
    assert (PIPELINES / "spec.schema.json").read_text() == schema_text(), "run: coolsd-rt schema"


def test_schema_refuses_what_the_models_refuse() -> None:
    schema = json.loads(schema_text())
    for change in (
        {"draft": {"model": "eagle", "weights": "x", "length": 0}},
        {"extra": 1},
        {"schedule": {"kind": "x"}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(good() | change, schema)


def test_every_key_is_described() -> None:
    """Field descriptions are the reference documentation."""
    for section in (*vars(spec_model).values(), *vars(condition).values()):
        if isinstance(section, type) and issubclass(section, BaseModel) and section is not Spec:
            for name, info in section.model_fields.items():
                assert info.description or name in ("kind", "rule", "model"), f"{section.__name__}.{name}"


SPECS = sorted(set(PIPELINES.glob("*.yaml")) - set(PIPELINES.glob("*-sweep*")))


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.name)
def test_shipped_specs_are_valid(path: Path) -> None:
    assert path.read_text().startswith("# yaml-language-server: $schema=spec.schema.json\n")
    assert load_spec(path, check_files=False).spec.name == path.stem
