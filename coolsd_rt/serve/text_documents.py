"""The documents of the two text routes: whole answers and the events of streams, as OpenAI writes them.

Knows names and places of values. Does not know engines or how a text is written.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coolsd_rt.serve.messages import WrittenMessage

OBJECTS = {True: ("chat.completion", "chat.completion.chunk"), False: ("text_completion", "text_completion")}


@dataclass(frozen=True)
class TextDocuments:
    """The documents of one request. chat: of which route. engine: fingerprint of the model."""

    chat: bool
    model: str
    engine: str
    created: int
    number: str = field(default_factory=lambda: secrets.token_hex(16))

    def answer(
        self, written: Sequence[WrittenMessage], usage: Mapping[str, int], warnings: list[str]
    ) -> dict[str, Any]:
        """Return a whole answer."""
        ours = {"model": self.model, "engine": self.engine, "texts": [dict(one.figures) for one in written]}
        choices = [self._choice(index, one.text, one.reason) for index, one in enumerate(written)]
        return {**self._head(False), "choices": choices, "usage": usage, "coolsd": {**ours, "warnings": warnings}}

    def begin(self, index: int) -> dict[str, Any]:
        """Return the first event of a text of a chat: whose turn it is."""
        return self._event([self._part(index, {"role": "assistant", "content": ""})])

    def gained(self, index: int, text: str) -> dict[str, Any]:
        """Return the event of what a text gained."""
        return self._event([self._part(index, {"content": text}) if self.chat else self._choice(index, text, None)])

    def end(self, index: int, written: WrittenMessage) -> dict[str, Any]:
        """Return the last event of a text."""
        choice = self._part(index, {}, written.reason) if self.chat else self._choice(index, "", written.reason)
        whose = {"model": self.model, "engine": self.engine}
        return {**self._event([choice]), "coolsd": {**written.figures, **whose, "warnings": list(written.warnings)}}

    def usage(self, usage: Mapping[str, int]) -> dict[str, Any]:
        """Return the event that has the tokens of the request."""
        return {**self._event([]), "usage": usage}

    def _head(self, stream: bool) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.number}",
            "object": OBJECTS[self.chat][stream],
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.engine,
        }

    def _event(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head(True), "choices": choices}

    def _choice(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        return {"index": index, **said, "logprobs": None, "finish_reason": reason}

    def _part(self, index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def usage_of(written: Sequence[WrittenMessage], texts: int) -> dict[str, int]:
    """Return the tokens of a request. texts: of each prompt, whose tokens count once."""
    prompt = sum(one.prompt_tokens for one in written[::texts])
    tokens = sum(int(one.figures["tokens"]) for one in written)
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
