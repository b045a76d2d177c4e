"""What texts follow: messages of a chat, texts, token ids; and the strings that end them. Checked with errors in words.

Knows the shapes that OpenAI's clients send. Does not know tokens or templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coolsd_rt import limits
from coolsd_rt.errors import UserError
from coolsd_rt.serve.api_errors import ApiError
from coolsd_rt.serve.messages import Prompt
from coolsd_rt.shown import show

ROLES = ("system", "user", "assistant")
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class ContentPart(BaseModel):
    """A piece of a message's text."""

    model_config = _STRICT

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A message of a chat."""

    model_config = _STRICT

    role: Literal["system", "user", "assistant"]
    content: str | list[ContentPart] = Field(description="Its text, whole or in pieces.")

    @property
    def text(self) -> str:
        """Its text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


def read_messages(value: Any) -> list[dict[str, Any]]:
    """Return the messages of a chat without keys that are null. Raises ApiError."""
    if not isinstance(value, list) or not value:
        raise _wrong("messages", "a list of messages", show(value), 'give one, as {"role": "user", "content": "..."}')
    return [_message(f"messages[{place}]", message) for place, message in enumerate(value)]


def _message(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, "a message, as {role, content}", show(value))
    message = {key: part for key, part in value.items() if part is not None}
    for key in message:
        if key not in ("role", "content"):
            raise _wrong(f"{name}.{key}"[:80], "role and content alone", "another key", "leave it out")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise _wrong(f"{name}.role", f"one of {', '.join(ROLES)}", show(role))
    if isinstance(content, list):
        for place, part in enumerate(content):
            _check_part(f"{name}.content[{place}]", part)
    elif not isinstance(content, str):
        raise _wrong(f"{name}.content", "a text, or a list of parts of it", show(content))
    return message


def _check_part(name: str, part: Any) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text" or set(part) != {"type", "text"} or not isinstance(part["text"], str):
        found = f"a part of the type {show(kind)}" if isinstance(kind, str) and kind != "text" else show(part)
        raise _wrong(name, 'a part as {"type": "text", "text": "..."}', found, "engines here read text alone")


def read_prompts(value: Any) -> Sequence[Prompt]:
    """Return the prompts of a completion. Raises UserError."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise UserError("prompt", expected="a text, token ids, or a list of them", found=show(value))
    if all(map(_is_whole, value)):
        return [_ids("prompt", value)]
    most = int(limits.SERVED_PROMPTS.high)
    if len(value) > most:
        raise UserError("prompt", expected=f"at most {most} of them", found=str(len(value)), fix="ask in parts")
    for place, part in enumerate(value):
        if isinstance(part, list) and part and all(map(_is_whole, part)):
            _ids(f"prompt[{place}]", part)
        elif not isinstance(part, str):
            raise UserError(f"prompt[{place}]", expected="a text or token ids", found=show(part))
    if len({type(part) for part in value}) > 1:
        raise UserError("prompt", expected="texts or token ids", found="both in one list", fix="ask for them apart")
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _ids(name: str, value: list[int]) -> list[int]:
    """Return token ids. Which of them an engine has, it says itself. Raises UserError."""
    most = int(limits.CODES.high)
    for number in value:
        if not 0 <= number <= most:
            raise UserError(name, expected=f"token ids from 0 to {most}", found=show(number))
    return value


def read_stop(value: Any) -> None:
    """Raise UserError unless a value is a stop string, a list of up to four, or None."""
    if value is None:
        return
    stops = value if isinstance(value, list) else [value]
    most = int(limits.STOP_CHARACTERS.high)
    if isinstance(value, list) and len(stops) > limits.STOP_STRINGS.high:
        raise UserError("stop", expected=f"at most {limits.STOP_STRINGS.high} strings", found=str(len(stops)))
    for stop in stops:
        if not isinstance(stop, str) or not 1 <= len(stop) <= most:
            found = f"{len(stop)} characters" if isinstance(stop, str) else show(stop)
            raise UserError("stop", expected=f"strings of 1 to {most} characters", found=found)


def _wrong(what: str, expected: str, found: str, fix: str = "") -> ApiError:
    text = str(UserError(what, expected=expected, found=found, fix=fix))
    return ApiError(400, text, param="messages", code="invalid_value")
