"""A spec with one thing wrong: valid, or an error of ours that names the line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.spec import load_spec
from tests.mutations import BRACKETS, VALUES, Place, changed, deep_texts, dump, fuzz, mutated, mutated_text, survives
from tests.spec.conftest import GOOD, Write

# A second each, since YAML is scanned in Python: once a kind of place below, and not drawn again and again.
SLOW = ("a long list", "long text")


def ends_in_a_line(path: Path) -> None:
    """Assert that the spec is valid, or refused as what a user typed."""
    refused = survives(lambda: load_spec(path))
    assert refused is None or refused.exit_code == 2


@fuzz(300)
@given(data=st.data())
def test_a_spec_with_one_changed_value(write: Write, data: st.DataObject) -> None:
    """JSON is YAML: the document in it, so that every change can be written down."""
    path = write()
    path.write_bytes(data.draw(mutated(RESOLVED).filter(lambda mutant: not mutant.what.endswith(SLOW))).text)
    ends_in_a_line(path)


@pytest.mark.parametrize("what", SLOW)
@pytest.mark.parametrize("place", [(), ("draft", "length")], ids=str)
def test_a_value_that_is_long(write: Write, place: Place, what: str) -> None:
    path = write()
    path.write_bytes(dump(changed(RESOLVED, place, lambda _: VALUES[what])))
    ends_in_a_line(path)


# More levels than a spec may have, and few enough to be drawn often; as deep as elsewhere below.
@fuzz(300)
@given(
    text=st.one_of(
        mutated_text(GOOD, brackets=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))
    )
)
def test_a_specs_text_with_one_change(write: Write, text: bytes) -> None:
    path = write()
    path.write_bytes(text)
    ends_in_a_line(path)


@pytest.mark.parametrize("text", deep_texts(BRACKETS), ids=lambda text: str(text[:6]))
@pytest.mark.parametrize("at", [0, GOOD.index("5}")])
def test_a_specs_text_that_is_deep(write: Write, text: bytes, at: int) -> None:
    path = write()
    raw = GOOD.encode()
    path.write_bytes(raw[:at] + text + raw[at:] if at else text)
    ends_in_a_line(path)


RESOLVED = {
    "version": 1,
    "name": "toy",
    "target": {"model": "llamagen", "weights": "w/target.safetensors"},
    "draft": {"model": "eagle", "weights": "w/draft.safetensors", "length": 5},
    "image": {"tokenizer": "vq", "weights": "w/vq.safetensors", "neighbours": 64},
    "condition": {"kind": "words", "vocab": "w/vocab.json"},
    "schedule": {"kind": "none"},
    "acceptance": {"rule": "lantern", "bound": 0.2, "neighbours": 8},
    "sampling": {"cfg_scale": 1.5, "temperature": 1.0, "top_k": 6, "top_p": 1.0, "cfg_interval": -1},
    "pacing": {"confidence": 0.9, "draft_confidence": 0.4},
    "engine": {"backend": "onnxruntime", "device": "cpu", "precision": "fp32", "max_batch": 4},
}


def test_the_document_is_valid(write: Write) -> None:
    path = write()
    path.write_text(json.dumps(RESOLVED))
    assert load_spec(path).spec.acceptance.rule == "lantern"
