"""Marks texts right or wrong, for the first turns of MT-Bench that have one checkable answer.

A question is known by its number and by words of its first turn, so that another file's questions are not marked. A
text is right if

    Last    the last number of the text (or the last of some words) is the answer: 12,000 and 35/36 and 19% are numbers
    Says    the text has a pattern, and none of what contradicts it

A rule sees no reasoning, and a text that ends before its answer is wrong; both hold for every law. Left out of the
categories math and reasoning: 103 (reasons that are all possible). Of other categories all are left out: their
references are programs to run, lists whose form is free, or explanations.

Knows texts. Does not know laws.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tools.text.served_texts import Question

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+(?:\.\d+)?)?\s*%?")


def numbers(text: str) -> list[float]:
    """Return the numbers of a text: fractions as quotients, percentages as shares of 1."""
    return [value for word in _NUMBER.findall(text) if (value := _value(word)) is not None]


def _value(word: str) -> float | None:
    share = 0.01 if word.endswith("%") else 1.0
    top, _, bottom = word.rstrip("% ").replace(",", "").partition("/")
    if bottom and not float(bottom):
        return None
    return share * float(top) / (float(bottom) if bottom else 1.0)


@dataclass(frozen=True)
class Last:
    """The last number of the text is one of `values`, up to `within`."""

    values: tuple[float, ...]
    within: float = 1e-9

    def right(self, text: str) -> bool:
        """Whether a text has the answer."""
        found = numbers(text)
        return bool(found) and any(abs(found[-1] - value) <= self.within for value in self.values)


@dataclass(frozen=True)
class LastWord:
    """The last of the words `among`, a pattern, is `word`."""

    among: str
    word: str

    def right(self, text: str) -> bool:
        """Whether a text has the answer."""
        found = re.findall(self.among, text, re.IGNORECASE)
        return bool(found) and str(found[-1]).lower() == self.word


@dataclass(frozen=True)
class Says:
    """The text has the pattern `pattern`, and not the pattern `never`."""

    pattern: str
    never: str = r"(?!)"  # matches nothing

    def right(self, text: str) -> bool:
        """Whether a text has the answer."""
        has, contradicts = (re.search(p, text, re.IGNORECASE) is not None for p in (self.pattern, self.never))
        return has and not contradicts


Answer = Last | LastWord | Says
_BROTHERS = r"\b(no|zero|0)\s+(other\s+)?brothers?\b|\b(does not|doesn't|does n't) have (any|a) (other )?brothers?\b"

ANSWERS: dict[int, tuple[str, Answer]] = {
    101: ("overtaken the second person", Says(r"\b(second|2nd)\s+(place|position)\b", r"\b(first|1st)\s+(place|pos)")),
    102: ("where is the White House", Says(r"\bWashington\b")),
    104: ("David has three sisters", Says(_BROTHERS)),
    105: ("The secretary drives a yellow car", Says(r"secretary (is|must be) alice|alice (is|must be) the secr")),
    106: ("Oranges cost more than apples", Says(r"\btrue\b", r"\b(false|uncertain)\b")),
    107: ("B is the father of C", Says(r"\bgrandfather\b")),
    108: ("does not belong", Says(r"\bcar\W+(does not|doesn't) belong|(word|one|answer)\b[^.\n]{0,50}\bis:?\W+car\b")),
    109: ("facing a pole", LastWord(r"\b(east|west|north|south)\b", "west")),
    110: ("bullying during recess", Says(r"\bc\)|\b(option|answer is) c\b", r"\b[abd]\)|\boption [abd]\b")),
    111: ("area of the triangle", Last((3,))),
    112: ("tech startup invests", Last((12000,))),
    113: ("neither blue nor green", Last((0.19, 19))),
    114: ("rolling two dice", Last((35 / 36,), 0.003)),
    115: ("got on a bus at the terminal", Last((38,))),
    116: ("express x-y in z", Last((0,))),
    117: ("|x + 5| < 10", Last((19,))),
    118: ("twice the number is divided by 4", Last((0,))),
    119: ("Benjamin went to a bookstore", Last((280,))),
    120: ("4x^3 - 9x - 14", Last((0,))),
}  # fmt: skip
"""By question_id: words of the first turn, and its answer."""


def answer_of(question: Question) -> Answer | None:
    """Return the answer of a question; None if it has no checkable one."""
    words, answer = ANSWERS.get(question.number, ("", None))
    return answer if answer is not None and words in question.prompt else None
