"""Fields of OpenAI's text routes that this server does not have. They take the value that changes nothing, no other.

Clients send such values without being asked to. Knows names and values. Does not know requests.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_NONE = "Not here; only the value that changes nothing is taken."
_ANY = "Without effect."
Zero = Annotated[float, Field(ge=0, le=0)]
NoList = Annotated[list[Any], Field(max_length=0)]
NoDict = Annotated[dict[str, Any], Field(max_length=0)]
OneWord = Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)]


class TextFormat(BaseModel):
    """A text as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["text"]


class NeutralFields(BaseModel):
    """Fields of both routes."""

    frequency_penalty: Zero | None = Field(None, description=_NONE)
    presence_penalty: Zero | None = Field(None, description=_NONE)
    logit_bias: NoDict | None = Field(None, description=_NONE)


class CompletionNeutral(NeutralFields):
    """Fields of `/v1/completions`."""

    best_of: Literal[1] | None = Field(None, description=_NONE)
    echo: Literal[False] | None = Field(None, description=_NONE)
    logprobs: None = Field(None, description=_NONE)
    suffix: Literal[""] | None = Field(None, description=_NONE)


class ChatNeutral(NeutralFields):
    """Fields of `/v1/chat/completions`."""

    audio: None = Field(None, description=_NONE)
    function_call: Literal["none"] | None = Field(None, description=_NONE)
    functions: NoList | None = Field(None, description=_NONE)
    logprobs: Literal[False] | None = Field(None, description=_NONE)
    metadata: dict[str, str] | None = Field(None, description=_ANY)
    modalities: OneWord | None = Field(None, description=_NONE)
    parallel_tool_calls: bool | None = Field(None, description=_ANY)
    prediction: None = Field(None, description=_NONE)
    reasoning_effort: Literal["none"] | None = Field(None, description=_NONE)
    response_format: TextFormat | None = Field(None, description=_NONE)
    service_tier: Literal["auto", "default"] | None = Field(None, description=_ANY)
    store: Literal[False] | None = Field(None, description=_NONE)
    tool_choice: Literal["none"] | None = Field(None, description=_NONE)
    tools: NoList | None = Field(None, description=_NONE)
    top_logprobs: Zero | None = Field(None, description=_NONE)
    verbosity: Literal["medium"] | None = Field(None, description=_NONE)
    web_search_options: None = Field(None, description=_NONE)


NEUTRAL = frozenset({*CompletionNeutral.model_fields, *ChatNeutral.model_fields})
"""The names of all of them."""
