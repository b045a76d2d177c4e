"""Specs of before: each loads, to the values it had then. `before/resolved.json` was made by the code of then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coolsd_rt.spec import load_spec

BEFORE = Path(__file__).parent / "before"
RESOLVED = json.loads((BEFORE / "resolved.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(RESOLVED))
def test_a_spec_of_before_has_the_values_of_before(name: str) -> None:
    loaded = load_spec(BEFORE / f"{name}.yaml", check_files=False).spec
    found = json.loads(json.dumps(loaded.resolved(), default=str))
    # Then the only kind was today's `manual`, without a name. A spec without thresholds has today's default.
    thresholds = any(RESOLVED[name]["pacing"].values())
    assert found["pacing"].pop("kind") == ("manual" if thresholds else "auto")
    if "coupled" in found["draft"]:  # then true or false; today the coupling has a name
        found["draft"]["coupled"] = {"maximal": True, None: False}[found["draft"]["coupled"]]
    if "sources" in found:  # keys of today that were not there then
        assert found["sources"].pop("template") is None
        assert {o.pop("length") for o in found["sources"].values() if o and "family" in o} <= {None}
    assert found == RESOLVED[name]


def test_the_specs_of_before_have_every_kind() -> None:
    """Else a kind could be renamed, and none of them would say so."""
    assert {path.stem for path in BEFORE.glob("*.yaml")} == set(RESOLVED)
    for section, key, kinds in (
        ("schedule", "kind", {"exponential", "linear", "uniform", "excess", "none", "custom"}),
        ("acceptance", "rule", {"ratio", "lantern", "lantern_pp", "synthetic"}),
        ("resampler", "kind", {"optimal", "waterfill", "residual", "lantern", "target"}),
        ("condition", "kind", {"words", "class", "t5", "tokens"}),
        ("engine", "backend", {"onnxruntime", "torch", "tensorrt", "tensorrt-rtx"}),
    ):
        assert {spec[section][key] for spec in RESOLVED.values()} == kinds, section
    assert {"eagle", "jacobi"} < {spec["draft"]["model"] for spec in RESOLVED.values()}
