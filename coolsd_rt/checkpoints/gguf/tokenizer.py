"""Makes a tokenizer.json, which the package tokenizers reads, of a GGUF file's metadata: byte-level BPE.

A GGUF file names the rule that cuts text into words before merges; the rules here are those that llama.cpp applies
under these names. Deterministic: the same file gives the same bytes. Knows the keys `tokenizer.ggml.*`. Does not run
the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coolsd_rt.checkpoints.gguf.header import read_header
from coolsd_rt.errors import UserError

_KEYS = "tokenizer.ggml."
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
"""Types of tokens that stand for themselves in a text, before words are cut."""
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_RULES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "gpt-2": (_BYTES,),
    "smollm": ({"type": "Digits", "individual_digits": True}, _BYTES),
    "llama-bpe": (
        {"type": "Split", "pattern": {"Regex": _LLAMA_3}, "behavior": "Isolated", "invert": False},
        _BYTES | {"use_regex": False},
    ),
}
"""Pre-tokenizers by their names in `tokenizer.ggml.pre`."""
_WHOLE_WORDS = ("llama-bpe",)
"""Rules under which a word that is a token stays whole, whatever the merges; and that begin a text by default."""


def tokenizer_json(path: Path) -> bytes:
    """Return the tokenizer.json of the GGUF file at `path`.

    Raises UserError if the file is not GGUF, as `read_header` does; has no tokenizer, or one of another kind, or one
    whose words are cut by an unknown rule; or if its tokens, merges and ids contradict each other.
    """
    data = _Metadata(path, read_header(path).fields)
    kind = data.get("model")
    if not isinstance(kind, str) or kind != "gpt2":
        raise data.error("model", "gpt2: byte-level BPE", _shown(kind), "name a tokenizer.json in sources.tokenizer")
    rule = data.get("pre")
    if not isinstance(rule, str) or rule not in _RULES:
        raise data.error(
            "pre", f"one of {', '.join(_RULES)}", _shown(rule), "name a tokenizer.json in sources.tokenizer"
        )
    tokens = data.tokens()
    vocabulary = {token: number for number, token in enumerate(tokens)}
    whole = rule in _WHOLE_WORDS
    made = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokens, data.types(len(tokens))),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(_RULES[rule])},
        "post_processor": _ends(data, tokens, begins=data.flag("add_bos_token", whole)),
        "decoder": _BYTES,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": whole,
            "vocab": vocabulary,
            "merges": data.merges(vocabulary),
        },
    }
    return json.dumps(made, ensure_ascii=False, indent=1).encode() + b"\n"


class _Metadata:
    """The keys `tokenizer.ggml.*` of one file, checked when they are read."""

    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        self._path, self._fields = path, fields

    def error(self, key: str, expected: str, found: str, fix: str = "") -> UserError:
        """Return the error for a key."""
        return UserError(f"{self._path}: {_KEYS}{key}", expected=expected, found=found, fix=fix)

    def get(self, key: str) -> Any:
        """Return a value; None if there is none."""
        return self._fields.get(_KEYS + key)

    def tokens(self) -> list[str]:
        """Return the tokens in the order of their ids."""
        tokens: list[str] = self._texts("tokens")
        seen: set[str] = set()
        for token in tokens:
            if token in seen:
                raise self.error("tokens", "every token once", f"{token[:60]!r} twice")
            seen.add(token)
        if "" in seen:
            raise self.error("tokens", "tokens with characters", "an empty one")
        return tokens

    def types(self, count: int) -> list[int]:
        """Return the type of each token."""
        types = self.get("token_type")
        if getattr(types, "dtype", None) is None or types.dtype.kind not in "iu" or len(types) != count:
            raise self.error("token_type", f"{count} numbers, one a token", _shown(types))
        return [int(kind) for kind in types]

    def merges(self, vocabulary: Mapping[str, int]) -> list[list[str]]:
        """Return the pairs of tokens that are merged, the most frequent first."""
        pairs = [merge.split(" ") for merge in self._texts("merges")]
        for pair in pairs:
            if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
                raise self.error("merges", "two tokens that make a third", repr(" ".join(pair))[:60])
        return pairs

    def flag(self, key: str, default: bool) -> bool:
        """Return a value that is true or false."""
        value = self.get(key)
        if not (value is None or isinstance(value, bool)):
            raise self.error(key, "true or false", _shown(value))
        return default if value is None else value

    def token(self, key: str, tokens: Sequence[str]) -> int:
        """Return the id of a token that another key needs."""
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < len(tokens):
            raise self.error(key, f"an id below {len(tokens)}", _shown(value))
        return value

    def _texts(self, key: str) -> list[str]:
        value = self.get(key)
        if not isinstance(value, list) or not value:
            raise self.error(key, "a list of texts", _shown(value))
        return value


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return str(value)[:60] if isinstance(value, bool | int | float | str) else f"{len(value)} entries"


def _added(tokens: Sequence[str], types: Sequence[int]) -> list[dict[str, Any]]:
    whole = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": number, "content": token, **whole, "special": kind != _USER_DEFINED}
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]


def _ends(data: _Metadata, tokens: Sequence[str], begins: bool) -> dict[str, Any] | None:
    """Return the post-processor, with the tokens that begin and end a text; None if there are none."""
    first = [tokens[data.token("bos_token_id", tokens)]] if begins else []
    last = [tokens[data.token("eos_token_id", tokens)]] if data.flag("add_eos_token", False) else []
    if not first and not last:
        return None

    def around(part: str, number: int) -> list[dict[str, Any]]:
        marks = [[{"SpecialToken": {"id": token, "type_id": number}} for token in ends] for ends in (first, last)]
        return [*marks[0], {"Sequence": {"id": part, "type_id": number}}, *marks[1]]

    ids = {token: {"id": token, "ids": [tokens.index(token)], "tokens": [token]} for token in (*first, *last)}
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": ids,
    }
