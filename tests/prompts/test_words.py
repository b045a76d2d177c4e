"""A vocabulary's file is read strictly, before anything is made of what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.prompts import WordVocabulary
from tests.mutations import survives

SPECIAL = ["<pad>", "<unknown>", "<unconditional>"]
GOOD = {"prefix": 4, "words": [*SPECIAL, "apple", "red"]}


def test_it_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    made = WordVocabulary.from_captions(["red apple", "Green apple!"], 4)
    made.save(tmp_path / "vocab.json")
    assert WordVocabulary.load(tmp_path / "vocab.json") == made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prefix": 10**9}, "prefix: expected at most 65536, found 1000000000"),
        ({"prefix": 0}, "prefix: expected at least 1, found 0"),
        ({"prefix": 4.0}, "prefix: expected a whole number, found 4.0"),
        ({"prefix": "4"}, 'prefix: expected a whole number, found "4"'),
        ({"prefix": True}, "prefix: expected a whole number, found true"),
        ({"more": 1}, "more: expected no such key, found 1"),
        ({"words": ["a", *SPECIAL]}, 'words: expected <pad>, <unknown>, <unconditional> first, found "a", "<pad>"'),
        ({"words": SPECIAL[:2]}, "words: expected at least 3 values, found 2"),
        ({"words": [*SPECIAL, "red", 7]}, "words[4]: expected text, found 7"),
        ({"words": [*SPECIAL, "red", "red"]}, 'words[4]: expected another word than at 3, found "red"'),
        ({"words": [*SPECIAL, "x" * 257]}, "words[3]: expected at most 256 characters, found 257"),
        ({"words": [*SPECIAL, ""]}, "words[3]: expected at least 1 characters, found 0"),
    ],
)
def test_what_is_refused_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(GOOD | changes))
    error = survives(lambda: WordVocabulary.load(path))
    assert isinstance(error, UserError)
    assert str(error).startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"prefix": 1e400, "words": []}', "the number 1e400, too large for a float"),
        ('{"prefix": 4, "words": [], "prefix": 5}', "the key 'prefix' twice"),
        ("[" * 100_000, "more than 64 levels"),
        ('{"prefix": 4, "words": ["\\ud800"]}', "half of a surrogate pair"),
        ("", "text that is not JSON"),
    ],
)
def test_text_that_is_no_json_of_ours(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(text)
    error = survives(lambda: WordVocabulary.load(path))
    assert error is not None
    assert said in str(error)
