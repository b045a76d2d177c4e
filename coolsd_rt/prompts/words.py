"""Prompts to word ids: the `words` condition.

Knows a vocabulary of words and the fixed prefix. Does not know networks. Needs no torch, so that a built engine can
be run without it.
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

VOCABULARY_FILE = "vocab.json"  # in an engine's folder
PAD, UNKNOWN, UNCONDITIONAL = 0, 1, 2
_SPECIAL = ("<pad>", "<unknown>", "<unconditional>")


_Word = Annotated[str, Field(min_length=int(WORD_CHARACTERS.low), max_length=int(WORD_CHARACTERS.high))]


class _File(Strict):
    """A vocabulary as it stands in its file."""

    prefix: int = Field(ge=int(DIMS["prefix"].low), le=int(DIMS["prefix"].high))
    words: list[_Word] = Field(min_length=int(VOCABULARY_WORDS.low), max_length=int(VOCABULARY_WORDS.high))


@dataclass(frozen=True)
class WordVocabulary:
    """All words a target was trained on, in id order, and the prefix length W. A `Conditioner`.

    Every row has W ids, padded on the left with an id that the target was trained to see: none starts later.
    """

    words: tuple[str, ...]
    prefix: int

    @staticmethod
    def from_captions(captions: Iterable[str], prefix: int) -> WordVocabulary:
        return WordVocabulary((*_SPECIAL, *sorted({w for c in captions for w in split(c)})), prefix)

    @staticmethod
    def load(path: Path) -> WordVocabulary:
        """Read the JSON written by `save`, strictly.

        Raises UserError: not such a file, a prefix or a number of words beyond any target's, a word twice.
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
        path.write_text(json.dumps({"prefix": self.prefix, "words": list(self.words)}, indent=0) + "\n", "utf-8")

    @property
    def index(self) -> dict[str, int]:
        return {w: i for i, w in enumerate(self.words)}

    def encode(self, prompt: str) -> Encoded:
        """Word ids of a prompt. Unknown words are reported.

        Raises UserError: empty, without a letter or digit, longer than the prefix, not text.
        """
        text = some_text(prompt)
        words = split(text)
        if not words:
            expected = "a word: this target reads letters and digits, and skips all other characters"
            raise UserError("prompt", expected=expected, found=quoted(text), fix='for example -p "red apple"')
        if len(words) > self.prefix:
            raise too_long(text, len(words), self.prefix, "words")
        index = self.index
        ids = [index.get(w, UNKNOWN) for w in words]
        return Encoded(self._pad(ids), tuple(w for w in words if w not in index))

    @property
    def features_dim(self) -> int:
        return 0

    @property
    def padded(self) -> bool:
        return False

    def unconditional(self, encoded: Encoded | None = None) -> Encoded:
        """The row that CFG subtracts: the same for every prompt."""
        return Encoded((UNCONDITIONAL,) * self.prefix)

    def samples(self) -> list[str]:
        """Single words of it."""
        return [word for word in self.words if not word.startswith("<")]

    def release(self) -> None:
        """Nothing to let go of."""

    def _pad(self, ids: Sequence[int]) -> tuple[int, ...]:
        return (PAD,) * (self.prefix - len(ids)) + tuple(ids)


def split(text: str) -> list[str]:
    """Lower-case words of letters and digits, in order. The special tokens cannot be typed."""
    return re.findall(r"[^\W_]+", text.lower())
