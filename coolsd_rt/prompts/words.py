"""Converts prompts to word ids: the `words` condition.

Knows a vocabulary of words and the fixed prefix. Does not know networks. Needs no torch, so that a built engine runs
without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from coolsd_rt.errors import UserError
from coolsd_rt.limits import DIMS, VOCABULARY_BYTES, VOCABULARY_WORDS, WORD_CHARACTERS
from coolsd_rt.prompts.base import Encoded, quoted, some_text, too_long
from coolsd_rt.shown import show
from coolsd_rt.store.strict import Strict, read_model

VOCABULARY_FILE = "vocab.json"  # file name in an engine's folder
PAD, UNKNOWN, UNCONDITIONAL = 0, 1, 2
_SPECIAL = ("<pad>", "<unknown>", "<unconditional>")


_Word = Annotated[str, Field(min_length=int(WORD_CHARACTERS.low), max_length=int(WORD_CHARACTERS.high))]


class _File(Strict):
    """The contents of a vocabulary file."""

    prefix: int = Field(ge=int(DIMS["prefix"].low), le=int(DIMS["prefix"].high))
    words: list[_Word] = Field(min_length=int(VOCABULARY_WORDS.low), max_length=int(VOCABULARY_WORDS.high))


@dataclass(frozen=True)
class WordVocabulary:
    """A `Conditioner` with the words that a target was trained on, in id order, and the prefix length W.

    Every row has W ids, padded on the left with an id that the target saw in training, so no row starts later.
    """

    words: tuple[str, ...]
    prefix: int

    @staticmethod
    def from_captions(captions: Iterable[str], prefix: int) -> WordVocabulary:
        """Collect the words of `captions`. prefix: the prefix length W."""
        return WordVocabulary((*_SPECIAL, *sorted({w for c in captions for w in split(c)})), prefix)

    @staticmethod
    def load(path: Path) -> WordVocabulary:
        """Read the JSON file written by `save`, strictly.

        Raises UserError if the file is not a vocabulary, its prefix or number of words is out of range, or a word
        occurs twice.
        """
        expected = 'a word vocabulary, {"prefix": W, "words": [...]}'
        fix = "name the vocabulary that the target was trained with"
        found = read_model(path, _File, expected, VOCABULARY_BYTES, fix=fix, error=UserError)
        if tuple(found.words[: len(_SPECIAL)]) != _SPECIAL:
            wanted, begins = f"{', '.join(_SPECIAL)} first", ", ".join(show(word) for word in found.words[:3])
            raise UserError(f"{path}: words", expected=wanted, found=begins, fix=fix)
        places: dict[str, int] = {}
        for place, word in enumerate(found.words):
            if places.setdefault(word, place) != place:
                where = f"{path}: words[{place}]"
                raise UserError(where, expected=f"another word than at {places[word]}", found=show(word), fix=fix)
        return WordVocabulary(tuple(found.words), found.prefix)

    def save(self, path: Path) -> None:
        """Write the vocabulary as JSON."""
        path.write_text(json.dumps({"prefix": self.prefix, "words": list(self.words)}, indent=0) + "\n", "utf-8")

    @property
    def index(self) -> dict[str, int]:
        """Word to id."""
        return {w: i for i, w in enumerate(self.words)}

    def encode(self, prompt: str) -> Encoded:
        """Return the word ids of a prompt. Unknown words are reported in `unknown`.

        Raises UserError if the prompt is empty, has no letter or digit, is longer than the prefix, or is not text.
        """
        text = some_text(prompt)
        words = split(text)
        if not words:
            expected = "a word: this target reads letters and digits, and skips all other characters"
            raise UserError("prompt", expected=expected, found=quoted(text), fix='for example "red apple"')
        if len(words) > self.prefix:
            raise too_long(text, len(words), self.prefix, "words")
        index = self.index
        ids = [index.get(w, UNKNOWN) for w in words]
        return Encoded(self._pad(ids), tuple(w for w in words if w not in index))

    @property
    def features_dim(self) -> int:
        """0, since rows are ids."""
        return 0

    @property
    def padded(self) -> bool:
        """False: padding is visible to the target."""
        return False

    def unconditional(self, encoded: Encoded | None = None) -> Encoded:
        """Return the row that CFG subtracts, the same for every prompt."""
        return Encoded((UNCONDITIONAL,) * self.prefix)

    def samples(self) -> list[str]:
        """Return single words of the vocabulary."""
        return [word for word in self.words if not word.startswith("<")]

    def release(self) -> None:
        """Do nothing: there is nothing to free."""

    def _pad(self, ids: Sequence[int]) -> tuple[int, ...]:
        return (PAD,) * (self.prefix - len(ids)) + tuple(ids)


def split(text: str) -> list[str]:
    """Return the lower-case words of letters and digits, in order. Special tokens cannot be typed."""
    return re.findall(r"[^\W_]+", text.lower())
