"""Prompts that are no text, of every kind of condition: one sentence, short, with nothing that a terminal obeys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.errors import UserError
from coolsd_rt.prompts import ClassLabels, T5Conditioner, WordVocabulary
from coolsd_rt.shown import shorten

WORDS = WordVocabulary(("<pad>", "<unknown>", "<unconditional>", "apple", "red"), 3)
KINDS: dict[str, Any] = {
    "words": WORDS,
    "class": ClassLabels(5),
    "labels": ClassLabels(2, {"tench": (0,), "crane": (1,)}, ("tench", "crane")),
    "t5": T5Conditioner(np.zeros((3, 4), np.float32)),
}


@pytest.fixture(params=[*KINDS, "tokens"])
def encode(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Any]:
    if request.param == "tokens":
        pytest.importorskip("tokenizers")
        from coolsd_rt.prompts.tokens import TokensConditioner
        from tests.prompts.test_tokens import W, write_tokenizer

        return TokensConditioner.load(write_tokenizer(tmp_path / "t.json"), "anole", W).encode
    found: Callable[[str], Any] = KINDS[request.param].encode
    return found


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("red \ud800 apple", r"half of a surrogate pair \\ud800 at character 5 of 'red \\ud800 apple'; save the text"),
        ("\udfff", r"half of a surrogate pair \\udfff at character 1"),
        ("red\x1b[2J", r"the control character \\x1b at character 4 of 'red\\x1b[2J'; delete it"),
        ("a\x00b", r"the control character \\x00 at character 2"),
        ("a\x9bb", r"the control character \\x9b"),
        ("x" * 10_001, "prompt too long: expected at most 10000 characters, found 10001 in 'xxxx"),
    ],
)
def test_what_is_no_text_is_named(encode: Callable[[str], Any], prompt: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        encode(prompt)
    text = str(caught.value)
    assert said.replace("\\\\", "\\") in text
    assert text.isprintable()
    assert len(text) < 200


@given(st.text(st.characters(codec=None), max_size=200))
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_any_prompt_is_one_short_line(kind: str, prompt: str) -> None:
    said = ""
    try:
        KINDS[kind].encode(prompt)
    except UserError as error:
        said = str(error)
    assert said.isprintable()
    assert len(said) < 320


@pytest.mark.parametrize("prompt", ["!!!", " ★ ", "—", "😀"])
def test_a_prompt_of_symbols_is_not_empty(prompt: str) -> None:
    with pytest.raises(UserError) as caught:
        WORDS.encode(prompt)
    assert "empty" not in str(caught.value)
    assert f"reads letters and digits, and skips all other characters, found '{prompt.strip()}'" in str(caught.value)


def test_white_space_is_not_a_control_character() -> None:
    assert WORDS.encode("red\tapple\r\n").ids == WORDS.encode("red apple").ids


@pytest.mark.parametrize("kind", KINDS)
def test_long_prompts_are_cut(kind: str) -> None:
    with pytest.raises(UserError) as caught:
        KINDS[kind].encode("strange words " * 300)
    assert "..." in str(caught.value)
    assert len(str(caught.value)) < 320


def test_shorten_keeps_what_is_short_and_prints() -> None:
    assert shorten("a red apple, é 日本") == "a red apple, é 日本"
    assert shorten("x" * 60) == "x" * 60
    assert shorten("x" * 61) == "x" * 57 + "..."
    assert shorten("a\x1b[2J\n\ud800\u202e") == "a\\x1b[2J\\n\\ud800\\u202e"


@given(st.text(st.characters(codec=None)), st.integers(3, 80))
def test_shorten_never_passes_its_limit_and_always_prints(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short.isprintable()
    short.encode()
    whole = shorten(text, 10**6)
    assert short == whole or (short.endswith("...") and whole.startswith(short[:-3]) and len(whole) > limit)
