"""The shapes of answers, for the OpenAPI document. Answers are written elsewhere, and a test compares the two.

Knows names and types. Does not know how an answer is made.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coolsd_rt.serve.image_request import GenerationRequest


class Answer(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(Answer):
    """What went wrong."""

    message: str
    type: str
    param: str | None = Field(description="The field of the request that is wrong.")
    code: str | None


class ErrorAnswer(Answer):
    """Every answer that is no success."""

    error: ErrorBody


class ImageData(Answer):
    """One image."""

    b64_json: str = Field(description="The file of the image, in base64.")


class TokenDetails(Answer):
    """Tokens of the prompt by kind."""

    image_tokens: int
    text_tokens: int


class TokenUsage(Answer):
    """Tokens of a request."""

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int
    total_tokens: int


class PlanAnswer(Answer):
    """How an image was drafted."""

    draft: str | None
    draft_length: int
    plain_from: int | None = Field(description="Token from which on there were no drafts, because others had come.")


class DecodingFigures(Answer):
    """How an image or a text was decoded. Round r decided accepted[r] + 1 tokens; the first token is of no round."""

    seed: int
    tokens: int = Field(description="Of a text: up to the one that ended it.")
    rounds: int
    mean_acceptance_length: float | None
    accepted: list[int] = Field(description="Accepted drafts of each round.")
    num_drafts: list[int] = Field(description="Drafts of each round.")
    distance_per_token: float | None = Field(
        description="Of the rule per_position: what a token adds to the bound on its distance from the target."
    )
    plan: PlanAnswer
    seconds_queue: float
    seconds: float = Field(description="From entering a slot to the last token.")
    tokens_per_second: float | None


class FiguresAnswer(DecodingFigures):
    """How an image was drawn."""

    seconds_decode: float = Field(description="Of the image decoder.")
    grid: list[int] = Field(description="Rows and columns of codes.")


class CoolsdAnswer(Answer):
    """What OpenAI's answer has no field for."""

    model: str
    engine: str = Field(description="Fingerprint of the engine.")
    images: list[FiguresAnswer]
    warnings: list[str]


class ImagesAnswer(Answer):
    """The images of a plain request."""

    created: int
    data: list[ImageData]
    size: str
    quality: Literal["high"]
    background: Literal["opaque"]
    output_format: Literal["png", "jpeg", "webp"]
    usage: TokenUsage
    coolsd: CoolsdAnswer


class ModelFacts(Answer):
    """What is known of an engine that draws images."""

    engine: str
    makes: Literal["image"]
    size: str
    tokens: int
    grid: list[int]
    max_prompt: int = Field(description="Characters.")
    partial_images: int = Field(description="The most that a stream shows.")
    slots: int
    defaults: dict[str, Any] = Field(description="Values of the spec that a request may replace.")
    samples: list[str] = Field(description="Prompts to try; empty while the engine loads.")


class TextModelFacts(Answer):
    """What is known of an engine that writes text."""

    engine: str
    makes: Literal["text"]
    tokens: int = Field(description="The most tokens of a text.")
    prompt_tokens: int = Field(description="The most tokens of a prompt.")
    chats: bool = Field(description="Whether it has a chat template.")
    slots: int
    defaults: dict[str, Any] = Field(description="Values of the spec that a request may replace.")
    samples: list[str] = Field(description="Prompts to try; empty while the engine loads.")


class ModelAnswer(Answer):
    """An engine."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["coolsd-rt"]
    coolsd: ModelFacts | TextModelFacts


class ModelsAnswer(Answer):
    """All engines."""

    object: Literal["list"]
    data: list[ModelAnswer]


class HealthAnswer(Answer):
    """The server answers."""

    status: Literal["ok"]


class EngineState(Answer):
    """An engine, as it is now."""

    model: str
    state: Literal["loading", "ready", "restarting", "stopped"]
    reason: str


class ReadyAnswer(Answer):
    """Whether the server takes requests."""

    ready: bool
    draining: bool
    engines: list[EngineState]


_ERRORS = {
    400: "A value is wrong; `param` names the field.",
    401: "The key is missing or wrong.",
    403: "The Host is not this machine's; servers without a key on a local address.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    431: "The headers are too large.",
    429: "The queue is full; Retry-After says when to ask again.",
    500: "The engine or the server failed.",
    503: "The server ends, an engine is not ready, or too many connections are open.",
    504: "The answer was not ready in time.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of some errors."""
    return {status: {"model": ErrorAnswer, "description": _ERRORS[status]} for status in statuses}


IMAGES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ImagesAnswer,
        "description": "The images; with stream: true, events of image_generation.partial_image, "
        "image_generation.progress and image_generation.completed, then [DONE].",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    **errors(400, 401, 403, 404, 408, 413, 415, 429, 431, 500, 503, 504),
}

REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": GenerationRequest.model_json_schema(),
                "example": {"prompt": "red apple", "seed": 1},
            }
        },
    }
}
"""FastAPI is not asked to read the body: the server reads it strictly itself."""

MODEL_PARAMETER = {
    "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}]
}
