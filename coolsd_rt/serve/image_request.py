"""The body of `POST /v1/images/generations`: OpenAI's fields and ours, checked before an engine sees them.

The same code checks options here and in `coolsd_rt.Pipeline` (`Call.of`). Knows the fields and what excludes what.
Does not know engines or HTTP.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from coolsd_rt import limits
from coolsd_rt.errors import UserError
from coolsd_rt.serve.api_errors import ApiError, invalid, refused
from coolsd_rt.serve.request_object import Word, read_object, seed_or_random
from coolsd_rt.spec.messages import problems_of
from coolsd_rt.spec.section import Within
from coolsd_rt.workflows.call_options import SECTIONS, Call, check_names
from coolsd_rt.workflows.image_options import ImageOptions


class GenerationRequest(ImageOptions):
    """What to draw. Fields that are left out, or null, keep the values of the engine's spec."""

    model: Word | None = Field(None, description="Name of the engine; default: the first that is served.")
    n: Annotated[int, Within(limits.SERVED_IMAGES)] | None = Field(None, description="Images; image k has seed + k.")
    size: Word | None = Field(None, description="auto, or the size of the engine's images.")
    response_format: Literal["b64_json"] | None = Field(None, description="Images are in the answer itself.")
    output_format: Literal["png", "jpeg", "webp"] | None = Field(None, description="Default: png.")
    output_compression: Annotated[int, Within(limits.COMPRESSION)] | None = Field(
        None, description="Quality of jpeg and webp; default: 100."
    )
    quality: Literal["auto", "low", "medium", "high", "standard", "hd"] | None = Field(
        None, description="Without effect: an engine has one quality."
    )
    background: Literal["auto", "opaque"] | None = Field(None, description="Images are opaque.")
    moderation: Literal["auto", "low"] | None = Field(None, description="Without effect.")
    style: Literal["vivid", "natural"] | None = Field(None, description="Without effect.")
    user: Word | None = Field(None, description="Without effect, and not logged.")
    stream: bool | None = Field(None, description="Answer with server-sent events.")
    partial_images: Annotated[int, Within(limits.SERVED_PARTIAL_IMAGES)] | None = Field(
        None, description="Unfinished images to send; streams only."
    )
    progress: bool | None = Field(None, description="Send events about the decoding; streams only.")
    timeout: Annotated[float, Within(limits.REQUEST_SECONDS)] | None = Field(
        None, description="Seconds after which the request fails; at most the server's, which is the default."
    )
    seed: Annotated[int, Within(limits.SEED)] | None = Field(None, description="Default: random, told in the answer.")

    @property
    def images(self) -> int:
        """How many images."""
        return self.n or 1

    def first_seed(self) -> int:
        """Return the seed of the first image: the request's, or a random one."""
        return seed_or_random(self.seed)


def read_request(body: bytes) -> GenerationRequest:
    """Return the request of a body. Raises ApiError."""
    data = read_object(body)
    try:
        check_names(data, list(GenerationRequest.model_fields))
        request = GenerationRequest.model_validate(data)
    except ValidationError as error:
        raise _first_problem(error, data) from None
    except UserError as error:
        raise refused(error) from None
    _check_stream(request)
    try:
        _ = Call.of(request.prompt, request.options(0)).asked()
    except UserError as error:
        raise refused(error) from None
    return request


def _first_problem(error: ValidationError, data: dict[str, Any]) -> ApiError:
    name = str(error.errors(include_url=False)[0]["loc"][0])
    first = next(problem for problem in problems_of(error, data, GenerationRequest) if str(problem.path[0]) == name)
    if name in SECTIONS:  # a union: each branch has a complaint of its own
        return invalid(name, "a text or an object", first.found)
    if name == "response_format" and data.get(name) == "url":
        return invalid(name, "b64_json", "url", "the server keeps no images")
    if name == "background" and data.get(name) == "transparent":
        return invalid(name, "auto or opaque", "transparent", "engines draw opaque images")
    return invalid(name, first.expected, first.found, first.fix)


def _check_stream(request: GenerationRequest) -> None:
    if request.stream:
        if request.images > 1:
            raise invalid("n", "1 in a stream", str(request.images), "ask for each image, or without stream")
        return
    for name in ("partial_images", "progress"):
        if getattr(request, name):
            raise invalid(name, "a stream", "a plain request", "add stream: true")
