"""Every character that commands a terminal becomes visible, and no other one changes."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.cli.terminal import visible
from coolsd_rt.cli.terminal.text import fit

BIDI = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def commands(character: str) -> bool:
    """By Unicode: controls, line and paragraph separators, surrogates; and the bidirectional controls."""
    return unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") or character in BIDI


def test_every_character_there_is() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        shown = visible(character)
        assert (shown == character) is not commands(character), hex(code)
        assert not commands(character) or (shown.isascii() and shown.isprintable() and shown.startswith("\\"))


@given(st.text(st.characters(categories=None)))  # surrogates too
def test_a_line_is_one_line_and_can_be_written(text: str) -> None:
    shown = visible(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert visible(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[m", r"\x1b[31mred\x1b[m"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x9b\x7f\u202e\u2028\udcff", r"\x9b\x7f\u202e\u2028\udcff"),
        ("C:\\new", "C:\\new"),
        ("żółw 🐢 שלום", "żółw 🐢 שלום"),
    ],
)
def test_examples(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text("ab …", max_size=30), st.integers(0, 30))
def test_fitting_cuts_no_word(text: str, width: int) -> None:
    cut = fit(text, width)
    assert len(cut) <= width or cut == text
    if cut != text:
        assert text.startswith(cut.removesuffix("…"))
        rest = text[len(cut.removesuffix("…")) :]
        assert not cut or rest[0] == " "
