"""Stop strings: the text ends at the same character however it is cut, and nothing is told that is taken back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolsd_rt.serve.stop_strings import StopStrings

STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4)


def ended(text: str, stops: Sequence[str]) -> str:
    """Read character by character: the first place where a stop string is complete, the longest one there."""
    for count in range(1, len(text) + 1):
        found = [len(stop) for stop in stops if text[:count].endswith(stop)]
        if found:
            return text[: count - max(found)]
    return text


@given(st.lists(st.text("ab\n", max_size=5), max_size=8), STOPS)
def test_any_pieces_give_the_same_text(pieces: list[str], stops: list[str]) -> None:
    whole, told = "".join(pieces), ""
    reader = StopStrings(stops)
    for piece in pieces:
        told += reader.more(piece)
        assert reader.text == told
        assert ended(whole, stops).startswith(told)
    told += reader.more("", last=True)
    assert told == ended(whole, stops)
    assert reader.found == any(stop in whole for stop in stops)


@given(st.text("ab", max_size=20), STOPS)
def test_no_more_is_held_back_than_may_become_a_stop_string(text: str, stops: list[str]) -> None:
    reader = StopStrings(stops)
    reader.more(text)
    if not reader.found:
        held = text[len(reader.text) :]
        assert not held or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize(
    ("pieces", "stops", "text"),
    [
        (["red ap", "ple", " star"], ["apple"], "red "),
        (["a", "b", "c"], ["abc", "b"], "a"),  # b is complete first
        (["xab"], ["b", "ab"], "x"),  # both end there: the longer one
        (["aab", "aac"], ["aac"], "aab"),
        (["END"], ["END"], ""),
        (["EN"], ["END"], "EN"),
    ],
)
def test_where_a_text_ends(pieces: list[str], stops: list[str], text: str) -> None:
    reader = StopStrings(stops)
    assert "".join(map(reader.more, pieces)) + reader.more("", last=True) == text
    assert reader.more("more") == "" or not reader.found
