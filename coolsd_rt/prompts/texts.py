"""Converts texts and chats to tokens of a language model, and its tokens back to text: the `text` condition.

| prompt | tokens |
|---|---|
| a chat | its messages in the chat template; a control token inside a message is refused |
| a text | as it is, with the first token that the tokenizer adds, if it adds one; control tokens are read as such |

The unconditional row of CFG has the prompt's last token alone, as in transformers. Knows tokenizer.json files and chat
templates. Does not know networks. Needs no torch.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from coolsd_rt.errors import UserError
from coolsd_rt.limits import TEXT_CHARACTERS
from coolsd_rt.pretrained.tokenizer import encode, read_tokenizer
from coolsd_rt.prompts.base import Encoded, need, quoted, too_long
from coolsd_rt.prompts.chat import ChatTemplate, Message
from coolsd_rt.shown import shorten

SAMPLES = (
    "Name three things that fly.", "Write a short poem about the sea.", "What is 12 times 12?", "Why is the sky blue?",
)  # fmt: skip
_HELD = "\ufffd"  # what a tokenizer writes for bytes that are no whole character yet


@dataclass(frozen=True)
class TextConditioner:
    """A `Conditioner` for texts and chats. length: prefix length W. template: None: there are no chats."""

    tokenizer: Any
    length: int
    template: ChatTemplate | None = None

    @staticmethod
    def load(path: Path, length: int, template: Path | None = None) -> TextConditioner:
        """Create the conditioner with the tokenizer at `path`.

        Raises UserError if the file is not a tokenizer or the template no template, MissingExtra without the packages
        `tokenizers` and `jinja2`.
        """
        need("tokens", "tokenizers", *(() if template is None else ("jinja2",)))
        tokenizer = read_tokenizer(path, fix="name the tokenizer.json that was published with the target")
        return TextConditioner(tokenizer, length, None if template is None else ChatTemplate.load(template))

    @property
    def prefix(self) -> int:
        """The prefix length W."""
        return self.length

    @property
    def features_dim(self) -> int:
        """0, since rows are ids."""
        return 0

    @property
    def padded(self) -> bool:
        """True: prompts have different numbers of tokens."""
        return True

    def encode(self, prompt: str) -> Encoded:
        """Return a prompt's row: the first message of a chat, or without a template the text itself.

        Raises UserError if the prompt is empty, too long, or refused.
        """
        return self.encode_text(prompt) if self.template is None else self.encode_chat([_user(prompt)])

    def encode_text(self, text: str) -> Encoded:
        """Return the row of a text that is continued as it is. Raises UserError as `encode`."""
        return self._row(text, encode(self.tokenizer, readable(text)).ids)

    def encode_ids(self, ids: Sequence[int]) -> Encoded:
        """Return the row of a text that is given as tokens. Raises UserError if there are none, or too many."""
        return self._row(" ".join(map(str, ids[:20])), ids)

    def encode_chat(self, messages: Sequence[Message]) -> Encoded:
        """Return the row of a chat. Raises UserError as `encode`, or if no template takes the chat."""
        return self._row(messages[-1]["content"] if messages else "", self.chat_ids(messages))

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a chat. Raises UserError as `encode_chat`, except for its length."""
        if self.template is None:
            fix = "name condition.chat_template in the spec and build again, or give a text to continue"
            raise UserError("a chat", expected="an engine with a chat template", found="none", fix=fix)
        for message in messages:
            text = readable(message["content"])
            for mark in self._marks:
                if mark in text:
                    found = f"{quoted(mark)} in {quoted(text)}"
                    expected = "words, no control tokens of the target"
                    raise UserError("prompt", expected=expected, found=found, fix="drop it")
        ids: list[int] = encode(self.tokenizer, self.template.render(messages), marks=False).ids
        return ids

    def unconditional(self, encoded: Encoded) -> Encoded:
        """Return the unconditional row: the last token of the prompt. Source: transformers' guidance of texts."""
        return Encoded(encoded.ids[-1:], start=self.length - 1)

    def samples(self) -> list[str]:
        """Return general sample prompts."""
        return list(SAMPLES)

    def release(self) -> None:
        """Do nothing: there is nothing to free."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without control tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def token_ids(self, tokens: Sequence[str]) -> tuple[int, ...]:
        """Return the id of each token. Raises UserError for one that the tokenizer does not have."""
        found = [self.tokenizer.token_to_id(token) for token in tokens]
        if None in found:
            token = quoted(tokens[found.index(None)])
            raise UserError("text.end", expected="tokens of the tokenizer", found=token, fix="name its end tokens")
        return tuple(found)

    def _row(self, text: str, ids: Sequence[int]) -> Encoded:
        if not ids:
            fix = 'give one, for example "What flies?"'
            raise UserError("empty prompt", expected="at least one token", found=quoted(text), fix=fix)
        if len(ids) > self.length:
            raise too_long(text, len(ids), self.length)
        return Encoded(tuple(ids), start=self.length - len(ids))

    @cached_property
    def _marks(self) -> tuple[str, ...]:
        """Tokens that a message may not contain, so that a user cannot end a turn or speak for the assistant."""
        return tuple(t.content for t in self.tokenizer.get_added_tokens_decoder().values() if t.special)


class TextStream:
    """The text of tokens as they come. What has been returned never changes."""

    def __init__(self, conditioner: TextConditioner) -> None:
        self._conditioner, self.text = conditioner, ""

    def more(self, ids: Sequence[int], *, last: bool = False) -> str:
        """Return what the text of all tokens so far `ids` adds to what was returned before.

        Characters whose bytes are not whole yet are held back. last: nothing follows; what is held back is returned.
        """
        text = self._conditioner.decode(ids)
        if not last:
            text = text.rstrip(_HELD)
        if not text.startswith(self.text):
            return ""
        new, self.text = text[len(self.text) :], text
        return new


def _user(prompt: str) -> Message:
    return {"role": "user", "content": prompt}


def readable(text: str) -> str:
    """Return a text. Raises UserError if it is too long, or has half of a surrogate pair."""
    if len(text) > TEXT_CHARACTERS.high:
        found = f"{len(text)} in {quoted(text)}"
        most = f"at most {TEXT_CHARACTERS.high} characters"
        raise UserError("prompt too long", expected=most, found=found, fix="shorten it")
    for place, character in enumerate(text):
        if unicodedata.category(character) == "Cs":
            found = f"half of a surrogate pair {shorten(character)} at character {place + 1} of {quoted(text)}"
            raise UserError("prompt", expected="text", found=found, fix="save the text as UTF-8")
    return text
