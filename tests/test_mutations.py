"""The fuzz harness finds what it is for, and a mutant has one change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from coolsd_rt.errors import CoolsdError, UserError
from tests.mutations import BRACKETS, Mutant, Overtime, changed, changes, mutated, mutated_text, survives

DOCUMENT = {"name": "emoji", "dims": {"tokens": 256, "layers": 12}, "files": [{"size": 3}, {"size": 4}]}


def test_there_are_changes_of_every_place_and_kind() -> None:
    all_changes = [what for what, _, _ in changes(DOCUMENT)]
    assert len(set(all_changes)) == len(all_changes) > 300
    for what in ("dims.tokens: 10^30", "files.1.size: removed", "dims: twice", "files: list emptied", "all: null"):
        assert what in all_changes
    assert {what.partition(":")[0].partition(".")[0] for what, _, _ in changes(DOCUMENT, ("dims",))} == {"dims"}


@settings(max_examples=500)
@given(st.data())
def test_a_mutant_is_the_document_but_for_one_place(data: st.DataObject) -> None:
    before = json.dumps(DOCUMENT)
    n = data.draw(st.integers(0, len(changes(DOCUMENT)) - 1))
    what, place, change = changes(DOCUMENT)[n]
    mutant = Mutant(what, changed(DOCUMENT, place, change))
    assert json.dumps(DOCUMENT) == before
    assert isinstance(mutant.text, bytes)
    if place:
        kept: Any = {k: v for k, v in mutant.data.items() if k != place[0]}
        assert kept == {k: v for k, v in DOCUMENT.items() if k != place[0]}


@pytest.mark.parametrize("sign", [b"1e400", b'"tokens": 256, "tokens"', b"\\ud800", b"NaN", b"[[[[[[", b"\\u001b"])
def test_mutants_hold_what_no_json_writer_writes(sign: bytes) -> None:
    document = {"tokens": 256}
    assert sign[:9] in find(mutated(document), lambda m: sign[:9] in m.text).text


@given(mutated_text(json.dumps(DOCUMENT)))
def test_a_mutated_text_is_another_text_of_bounded_size(text: bytes) -> None:
    assert len(text) < 12 * BRACKETS


def test_the_runner_tells_an_error_of_ours_from_a_bug() -> None:
    def refuse() -> None:
        raise UserError("it", expected="one", found="another")

    assert survives(lambda: 1) is None
    assert isinstance(survives(refuse), UserError)
    with pytest.raises(ValueError, match="bug"):
        survives(lambda: (_ for _ in ()).throw(ValueError("bug")))
    with pytest.raises(AssertionError, match="MiB"):
        survives(lambda: bytes(80 << 20))
    with pytest.raises(MemoryError):
        survives(lambda: (0,) * 10**9)
    for text in ("KeyError: 'x'", "unexpected keyword", "x" * 3000):
        error = CoolsdError("it", found=text)
        with pytest.raises(AssertionError):
            survives(lambda error=error: (_ for _ in ()).throw(error))  # type: ignore[misc]


def test_the_runner_ends_what_does_not_end() -> None:
    def spin() -> None:
        while True:
            pass

    def wait() -> None:
        import time

        time.sleep(60)

    def caught() -> None:
        try:
            spin()
        except Exception:  # what a careless caller would do
            return

    for call in (spin, wait, caught):
        with pytest.raises(Overtime):
            survives(call, cpu=0.2, wall=1.0)
