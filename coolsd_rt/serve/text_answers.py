"""The shapes of answers with texts, for the OpenAPI document. Answers are written elsewhere, and a test compares them.

Knows names and types. Does not know how an answer is made.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from coolsd_rt.serve.answers import Answer, DecodingFigures, errors
from coolsd_rt.serve.text_request import ChatRequest, CompletionRequest

Reason = Literal["stop", "length"]


class TextUsage(Answer):
    """Tokens of a request."""

    prompt_tokens: int = Field(description="Of each prompt once.")
    completion_tokens: int = Field(description="Of all texts, end tokens included.")
    total_tokens: int


class TextsCoolsdAnswer(Answer):
    """What OpenAI's answer has no field for."""

    model: str
    engine: str = Field(description="Fingerprint of the engine.")
    texts: list[DecodingFigures]
    warnings: list[str]


class AssistantMessage(Answer):
    """What was written."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Answer):
    """A message of a chat."""

    index: int
    message: AssistantMessage
    logprobs: None
    finish_reason: Reason = Field(description="stop: an end token or a stop string; length: as many as were asked for.")


class CompletionChoice(Answer):
    """A text. Texts of the first prompt come before those of the second."""

    index: int
    text: str
    logprobs: None
    finish_reason: Reason = Field(description="stop: an end token or a stop string; length: as many as were asked for.")


class _TextAnswer(Answer):
    id: str
    created: int
    model: str
    system_fingerprint: str = Field(description="Fingerprint of the engine.")
    usage: TextUsage
    coolsd: TextsCoolsdAnswer


class ChatAnswer(_TextAnswer):
    """The answer of a chat."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class CompletionAnswer(_TextAnswer):
    """The texts of a plain request."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]


_TEMPLATE = "#/components/schemas/{model}"


def _answers(model: type[BaseModel], chunk: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "model": model,
            "description": f"The texts; with stream: true, events that are a {chunk} each, then [DONE].",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **errors(400, 401, 403, 404, 408, 413, 415, 429, 431, 500, 503, 504),
    }


def _body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template=_TEMPLATE)
    parts = {key: value for key, value in schema.items() if key != "$defs"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": parts, "example": example}}}}


def shapes() -> dict[str, Any]:
    """Return the parts of the bodies that have names, for the document."""
    every = [model.model_json_schema(ref_template=_TEMPLATE) for model in (ChatRequest, CompletionRequest)]
    return {name: part for schema in every for name, part in schema.get("$defs", {}).items()}


CHATS = _answers(ChatAnswer, "chat.completion.chunk")
COMPLETIONS = _answers(CompletionAnswer, "text_completion")
CHAT_BODY = _body(ChatRequest, {"messages": [{"role": "user", "content": "What flies?"}], "max_tokens": 16, "seed": 1})
COMPLETION_BODY = _body(CompletionRequest, {"prompt": "The sky is", "max_tokens": 16, "seed": 1})
