"""A spec with one thing wrong: valid, or an error of ours that names the line."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.spec import load_spec
from tests.mutations import fuzz, mutated, mutated_text, survives
from tests.spec.conftest import GOOD, Write


@fuzz(300)
@given(data=st.data())
def test_a_spec_with_one_changed_value(write: Write, data: st.DataObject) -> None:
    """JSON is YAML: the document in it, so that every change can be written down."""
    path = write()
    path.write_bytes(data.draw(mutated(RESOLVED)).text)
    refused = survives(lambda: load_spec(path))
    assert refused is None or refused.exit_code == 2


@fuzz(300)
@given(text=st.one_of(mutated_text(GOOD), st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))))
def test_a_specs_text_with_one_change(write: Write, text: bytes) -> None:
    path = write()
    path.write_bytes(text)
    refused = survives(lambda: load_spec(path))
    assert refused is None or refused.exit_code == 2


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
