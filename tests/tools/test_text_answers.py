"""Marks of answers: what is right, and what only looks like it."""

from __future__ import annotations

import pytest

from tools.text.answers import ANSWERS, answer_of, numbers
from tools.text.measures import distinct, repeated
from tools.text.served_texts import Question


def test_numbers_of_a_text() -> None:
    assert numbers("It costs $12,000, or 1/4 of 48.5, that is 19% (not 3/0).") == pytest.approx(
        [12000, 0.25, 48.5, 0.19]
    )
    assert numbers("none here") == []


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        (101, "You are in second place.", "You overtook the second person, so you are in first place."),
        (102, "It is in Washington, D.C.", "The White House is in front of you."),
        (104, "David has no brothers.", "David has three brothers."),
        (105, "Hence the secretary is Alice.", "Alice is next to David. The secretary is Enid."),
        (106, "The third statement is true.", "It is not true but uncertain."),
        (107, "A is the grandfather of C.", "A is the father of C."),
        (108, 'The word that does not belong is "car".', "A car has a tyre. The odd one is tyre."),
        (109, "The sun is in the east, so the shadow points west.", "The sun is in the west: it points east."),
        (110, "They should report c) the four girls.", "Report a) and c)."),
        (111, "With (0, 0) and (3, 3) the area is 3 square units.", "The points are (3, 3), so the area is 6."),
        (112, "In total $12,000.", "$8000 and then $4000."),
        (113, "So 19% like neither.", "58% + 45% - 22% = 81%"),
        (114, "That is 35/36.", "That is 1/36."),
        (114, "That is about 0.972.", "That is about 0.94."),
        (115, "38 people.", "25 people."),
        (116, "x - y = 0", "x - y = 2z"),
        (117, "-15 < x < 5: there are 19", "x lies in -15 .. 5"),
        (119, "100 + 90 + 90 = $280.00", "100 + 90 + 90 = 270"),
        (120, "f(2) = 32 - 18 - 14 = 0.", "f(2) = 4"),
    ],
)
def test_answers(question: int, right: str, wrong: str) -> None:
    answer = ANSWERS[question][1]
    assert answer.right(right)
    assert not answer.right(wrong)
    assert not answer.right("")


def test_a_question_is_known_by_its_words_too() -> None:
    words, answer = ANSWERS[119]
    assert answer_of(Question(119, "math", f"{words} and purchased books.")) is answer
    assert answer_of(Question(119, "math", "What is 2 + 2?")) is None
    assert answer_of(Question(103, "reasoning", "Thomas is very healthy")) is None


def test_repetition() -> None:
    assert repeated([1, 2, 3, 4, 1, 2, 3, 4]) == (1, 5)
    assert repeated([1, 1, 1, 1, 1, 1]) == (2, 3)
    assert repeated([1, 2]) == (0, 0)
    assert distinct([1, 2, 1, 2], 1) == 0.5
    assert distinct([1, 2, 1, 2], 2) == pytest.approx(2 / 3)
    assert distinct([1], 2) == 1
