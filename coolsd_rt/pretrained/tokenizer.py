"""Reads tokenizer.json, the only supported format, with the library `tokenizers`, after checking the file.

Given a folder without this file, a library may create a tokenizer of a few words, or convert another file in a way that
depends on installed packages. Neither happens here.

Knows the structure of the file. Does not know targets or encoders. Needs the package `tokenizers`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from coolsd_rt.errors import UserError
from coolsd_rt.files import JsonError, parse_json, read_text
from coolsd_rt.limits import FOREIGN_VOCABULARY, TOKENIZER_BYTES
from coolsd_rt.pretrained.settings import Schema, TokenId, validate
from coolsd_rt.shown import shorten

TOKENIZER_FILE = "tokenizer.json"
_WHAT = "a tokenizer.json"
_VOCABULARY = f"pieces of text with ids from 0 to {int(FOREIGN_VOCABULARY.high) - 1}, or with scores"
_READS = ("text that the tokenizer reads", "use other words, or the model's own tokenizer.json")


class _Added(Schema):
    id: TokenId
    content: Annotated[str, Field(min_length=1, max_length=1000)]


class _Model(Schema):
    """vocab: maps pieces to ids, or lists pieces with scores in the order of their ids."""

    type: str | None = None
    vocab: Any

    @field_validator("vocab")
    @classmethod
    def _pieces(cls, value: Any) -> Any:
        if isinstance(value, dict):
            if not all(type(n) is int and 0 <= n < FOREIGN_VOCABULARY.high for n in value.values()):
                raise ValueError(_VOCABULARY)
        elif not isinstance(value, list) or not all(_scored(pair) for pair in value):
            raise ValueError(_VOCABULARY)
        return value


def _scored(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is str and type(pair[1]) in (int, float)


class _Outline(Schema):
    model: _Model
    added_tokens: list[_Added] = Field(default_factory=list)
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None

    @field_validator("normalizer", "pre_tokenizer")
    @classmethod
    def _patterns(cls, value: Any) -> Any:
        """Refuse an empty pattern: the library accepts it and panics at the first prompt."""
        if _empty_pattern(value):
            raise ValueError("patterns that are not empty")
        return value

    @field_validator("post_processor")
    @classmethod
    def _templates(cls, value: Any) -> Any:
        """Refuse a template with an undefined token: the library accepts it and panics at the first prompt."""
        parts = value.get("processors") if isinstance(value, dict) else None
        for part in [value, *(parts if isinstance(parts, list) else [])]:
            if isinstance(part, dict) and part.get("type") == "TemplateProcessing" and not _defined(part):
                raise ValueError("a template whose special tokens are defined")
        return value


def _empty_pattern(value: Any) -> bool:
    if isinstance(value, dict):
        return any((k in ("Regex", "String") and v == "") or _empty_pattern(v) for k, v in value.items())
    return isinstance(value, list) and any(_empty_pattern(v) for v in value)


def _defined(template: dict[str, Any]) -> bool:
    known = template.get("special_tokens")
    pieces = [piece for key in ("single", "pair") if isinstance(template.get(key), list) for piece in template[key]]
    marks = [piece["SpecialToken"] for piece in pieces if isinstance(piece, dict) and "SpecialToken" in piece]
    return isinstance(known, dict) and all(isinstance(m, dict) and m.get("id") in list(known) for m in marks)


def read_tokenizer(path: Path, *, fix: str) -> Any:
    """Return a `tokenizers.Tokenizer` without padding or truncation.

    Raises UserError: no such file, or not a tokenizer.
    """
    from tokenizers import Tokenizer

    text = read_text(path, _WHAT, TOKENIZER_BYTES, fix=fix)
    try:
        data = parse_json(text)
    except JsonError as error:
        raise UserError(str(path), expected=_WHAT, found=str(error), fix=fix) from error
    validate(path, _Outline, data, _WHAT, fix=fix)
    with _as_one_line(str(path), _WHAT, fix):
        tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode(tokenizer: Any, text: str, *, marks: bool = True) -> Any:
    """Return the library's encoding of a prompt. marks: whether to add the file's special tokens.

    Raises UserError if the tokenizer cannot encode it, for example without an unknown token.
    """
    with _as_one_line("prompt", *_READS):
        return tokenizer.encode(text, add_special_tokens=marks)


def encode_batch(tokenizer: Any, texts: Sequence[str]) -> list[Any]:
    """Return encodings of prompts, padded if the tokenizer is set to pad. Raises UserError as `encode` does."""
    with _as_one_line("prompt", *_READS):
        encoded: list[Any] = tokenizer.encode_batch(list(texts))
        return encoded


@contextmanager
def _as_one_line(what: str, expected: str, fix: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # the library raises bare Exceptions, and a Rust panic is only a BaseException
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        found = shorten(" ".join(str(error).split()), 200) or "an error without a message"
        raise UserError(what, expected=expected, found=found, fix=fix) from error


def check_ids(path: Path, tokenizer: Any, rows: int, *, fix: str) -> None:
    """Raise UserError if an id of the tokenizer is outside an embedding of `rows` rows."""
    highest = max([*tokenizer.get_vocab(with_added_tokens=True).values(), *encode(tokenizer, "").ids], default=-1)
    if not 0 <= highest < rows:
        found = "no tokens" if highest < 0 else str(highest)
        expected = f"ids below {rows}, the vocab_size of the network"
        raise UserError(str(path), expected=expected, found=found, fix=fix)


def tokenizer_of(folder: Path, rows: int, *, fix: str) -> Any:
    """Return the tokenizer of a network's folder. Raises UserError as `read_tokenizer` and `check_ids` do.

    If the folder has a tokenizer in another format, the error says how to convert it to tokenizer.json.
    """
    path = folder / TOKENIZER_FILE
    if not os.path.lexists(path):
        others = [name for name in ("spiece.model", "vocab.json") if os.path.lexists(folder / name)]
        if others:
            fix = (
                f"make it of {others[0]}: AutoTokenizer.from_pretrained(folder).save_pretrained(folder), with "
                "transformers and sentencepiece"
            )
        raise UserError(str(path), expected="the network's tokenizer", found="no such file", fix=fix)
    tokenizer = read_tokenizer(path, fix=fix)
    check_ids(path, tokenizer, rows, fix=fix)
    return tokenizer
