"""Rows of a session: conditional ones first, each prefix at the right end, and its start where it begins."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from coolsd_rt.arrays import Floats32
from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.prompts import Encoded, WordVocabulary, check_fit, stack

WORDS = WordVocabulary.from_captions(["red apple", "blue star"], 3)
DIMS = ModelDims(8, 4, 1, 1, 4, 3, 4, 1, 1, 4)


@dataclass(frozen=True)
class Ragged:
    """Rows of one id a letter, or of features; the unconditional row is one longer or shorter."""

    prefix: int = 5
    features_dim: int = 0
    padded: bool = True

    def encode(self, prompt: str) -> Encoded:
        ids = tuple(ord(letter) for letter in prompt)
        start = self.prefix - len(ids)
        if not self.features_dim:
            return Encoded(ids, start=start)
        rows: Floats32 = np.outer(ids, np.arange(1, 1 + self.features_dim)).astype(np.float32)
        return Encoded(start=start, features=rows)

    def unconditional(self, encoded: Encoded) -> Encoded:
        return self.encode("??")

    def samples(self) -> list[str]:
        return ["a"]

    def release(self) -> None:
        pass


def test_conditional_rows_come_first_and_prefixes_end_at_the_last_position() -> None:
    ragged = Ragged()
    rows = stack(ragged, [ragged.encode("abc"), ragged.encode("z")], guided=True)
    assert rows.text.dtype == np.int64
    assert rows.text.tolist() == [[0, 0, 97, 98, 99], [0, 0, 0, 0, 122], [0, 0, 0, 63, 63], [0, 0, 0, 63, 63]]
    assert rows.start.dtype == np.int64
    assert rows.start.tolist() == [2, 4, 3, 3]


def test_features_stand_as_ids_do() -> None:
    ragged = Ragged(features_dim=2)
    rows = stack(ragged, [ragged.encode("ab")], guided=True)
    assert rows.text.dtype == np.float32
    assert rows.text.tolist() == [[[0, 0]] * 3 + [[97, 194], [98, 196]], [[0, 0]] * 3 + [[63, 126], [63, 126]]]
    assert rows.start.tolist() == [3, 3]


def test_without_guidance_there_are_no_unconditional_rows() -> None:
    rows = stack(WORDS, [WORDS.encode("red apple"), WORDS.encode("star")], guided=False)
    assert rows.text.tolist() == [[0, WORDS.index["red"], WORDS.index["apple"]], [0, 0, WORDS.index["star"]]]
    assert rows.start.tolist() == [0, 0]  # its padding is an id that the target was trained on


def test_words_have_one_unconditional_row_for_all() -> None:
    rows = stack(WORDS, [WORDS.encode("red apple"), WORDS.encode("star")], guided=True)
    assert rows.text[2:].tolist() == [[2, 2, 2]] * 2


def test_a_fitting_condition_passes() -> None:
    check_fit(WORDS, DIMS)
    check_fit(WORDS, replace(DIMS, padded=1))  # a target that could be padded need not be
    check_fit(Ragged(), replace(DIMS, prefix=5, padded=1))
    check_fit(Ragged(features_dim=7), replace(DIMS, prefix=5, padded=1, condition_dim=7))


@pytest.mark.parametrize(
    ("conditioner", "dims", "said"),
    [
        (WORDS, replace(DIMS, prefix=4), "prefix positions: expected 4, found 3"),
        (WORDS, replace(DIMS, condition_dim=7), "width of the features.*expected 7, found 0"),
        (Ragged(3, features_dim=7), replace(DIMS, padded=1), "width of the features.*expected 0, found 7"),
        (Ragged(3), DIMS, "different lengths.*expected 1, found 0"),
    ],
)
def test_another_targets_condition_is_refused(conditioner: Ragged | WordVocabulary, dims: ModelDims, said: str) -> None:
    with pytest.raises(CoolsdError, match=said):
        check_fit(conditioner, dims)


@pytest.mark.parametrize(("prompt", "said"), [(" ", "empty prompt"), ("red " * 4, "at most 3 words, found 4")])
def test_words_refuse_what_they_cannot_hold(prompt: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        WORDS.encode(prompt)
