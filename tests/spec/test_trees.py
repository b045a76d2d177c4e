"""A spec's tree: what it builds, what it may change later, and every refusal with what to write instead."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from coolsd_rt.spec import Spec, with_jacobi
from coolsd_rt.spec.messages import problems_of
from coolsd_rt.spec.networks import EagleDraft
from coolsd_rt.spec.schema import schema_text
from tests.spec.test_model import good

EAGLE = {"model": "eagle", "weights": "d.safetensors"}


def with_draft(draft: dict[str, Any], **engine: str) -> dict[str, Any]:
    data = good()
    return {**data, "draft": draft, "engine": {**data.get("engine", {}), **engine}}


def made(draft: dict[str, Any]) -> Spec:
    return Spec.model_validate(with_draft(draft))


def test_the_length_is_the_depth_of_the_tree() -> None:
    for more in ({}, {"length": 3}):
        spec = made({**EAGLE, "tree": [4, 2, 1], **more})
        assert spec.tree == (4, 2, 1)
        assert spec.draft.length == 3
        assert isinstance(spec.draft, EagleDraft)
        assert spec.draft.nodes == 4 + 8 + 8
        assert Spec.model_validate(spec.resolved()) == spec
        jsonschema.validate(with_draft({**EAGLE, "tree": [4, 2, 1], **more}), json.loads(schema_text()))
    assert with_jacobi(made({**EAGLE, "tree": [2, 2]}), 4).tree is None


def test_that_there_is_a_tree_is_built_in_and_its_widths_are_not() -> None:
    plain, narrow, wide = (made({**EAGLE, "length": 2, **more}) for more in ({}, {"tree": [1, 1]}, {"tree": [4, 2]}))
    assert narrow.build_view() == wide.build_view() != plain.build_view()
    assert narrow.build_view()["draft"] == {"model": "eagle", "length": 2, "tree": True}


def test_specs_without_a_tree_are_those_of_before() -> None:
    """As the manifests of their engines have them, byte for byte."""
    spec = made({**EAGLE, "length": 5})
    assert spec.tree is None
    assert spec.resolved()["draft"] == {**EAGLE, "length": 5}
    assert spec.build_view()["draft"] == {"model": "eagle", "length": 5}
    assert isinstance(spec.draft, EagleDraft)
    assert spec.draft.nodes == 5


@pytest.mark.parametrize(
    ("draft", "engine", "words"),
    [
        ({**EAGLE, "tree": [4, 2], "length": 3}, {}, ["draft.length", "the tree's depth, 2, or no length", "3"]),
        ({**EAGLE, "tree": []}, {}, ["draft.tree"]),
        ({**EAGLE, "tree": [2, 0]}, {}, ["draft.tree", "a whole number from 1 to 1024", "0"]),
        ({**EAGLE, "tree": [32, 32]}, {}, ["draft.tree", "at most 1024 nodes", "1056"]),
        ({**EAGLE, "tree": "4, 2"}, {}, ["draft.tree"]),
        ({**EAGLE}, {}, ["draft.length"]),
        ({"model": "jacobi", "length": 3, "tree": [2, 2, 2]}, {}, ["the draft eagle", "with the draft jacobi"]),
        ({"model": "ngram", "length": 3, "tree": [2, 2, 2]}, {}, ["the draft eagle", "with the draft ngram"]),
        ({**EAGLE, "model": "llamagen", "length": 1, "tree": [2]}, {}, ["draft.tree with the draft llamagen"]),
        ({**EAGLE, "tree": [2, 2]}, {"backend": "tensorrt", "device": "cuda"}, ["draft.tree", "tensorrt on cuda"]),
        ({**EAGLE, "tree": [2, 2]}, {"backend": "torch", "device": "cuda"}, ["draft.tree", "torch on cuda"]),
    ],
)  # fmt: skip
def test_trees_that_nothing_runs_are_refused(draft: dict[str, Any], engine: dict[str, str], words: list[str]) -> None:
    data = with_draft(draft, **engine)
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate(data)
    problems = problems_of(caught.value, data)
    said = " | ".join(
        f"{'.'.join(map(str, p.path))}: expected {p.expected}, found {p.found}; {p.fix}" for p in problems
    )
    for word in words:
        assert word in said
