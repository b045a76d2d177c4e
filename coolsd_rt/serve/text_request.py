"""The bodies of `POST /v1/completions` and `/v1/chat/completions`: OpenAI's fields and ours, checked before an engine.

Knows the fields and what excludes what. Does not know engines or HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coolsd_rt import limits
from coolsd_rt.errors import UserError
from coolsd_rt.serve.api_errors import ApiError, invalid, refused
from coolsd_rt.serve.messages import Prompt
from coolsd_rt.serve.neutral_fields import NEUTRAL, ChatNeutral, CompletionNeutral
from coolsd_rt.serve.request_object import Word, read_object, seed_or_random
from coolsd_rt.serve.text_prompts import ChatMessage, read_messages, read_prompts, read_stop
from coolsd_rt.shown import show
from coolsd_rt.spec.messages import problems_of
from coolsd_rt.spec.section import Within
from coolsd_rt.workflows.call_options import SECTIONS, Call, check_names
from coolsd_rt.workflows.image_options import LawOptions

Stop = Annotated[str, Field(min_length=1, max_length=int(limits.STOP_CHARACTERS.high))]
Stops = Annotated[list[Stop], Field(max_length=int(limits.STOP_STRINGS.high))]
_Prompts = str | list[str] | list[int] | list[list[int]]


class TextStreamOptions(BaseModel):
    """What a stream has besides the text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    include_usage: bool | None = Field(None, description="A last event has the tokens of the request.")
    include_obfuscation: Literal[False] | None = Field(None, description="There is none.")


class TextRequest(LawOptions):
    """What to write. Fields that are left out, or null, keep the values of the engine's spec."""

    model: Word | None = Field(None, description="Name of the engine; default: the first that writes texts.")
    max_tokens: Annotated[int, Within(limits.TEXT_TOKENS)] | None = Field(
        None, description="Most tokens of a text; default, and the most: the engine's text.length."
    )
    n: Annotated[int, Within(limits.SERVED_IMAGES)] | None = Field(
        None, description="Texts of each prompt; text k has seed + k."
    )
    stop: Stop | Stops | None = Field(
        None, description="Up to 4 strings. The text ends before the first that it would have."
    )
    stream: bool | None = Field(None, description="Answer with server-sent events.")
    stream_options: TextStreamOptions | None = Field(None, description="Streams only.")
    user: Word | None = Field(None, description="Without effect, and not logged.")
    timeout: Annotated[float, Within(limits.REQUEST_SECONDS)] | None = Field(
        None, description="Seconds after which the request fails; at most the server's, which is the default."
    )
    seed: Annotated[int, Within(limits.SEED)] | None = Field(None, description="Default: random, told in the answer.")

    chat: ClassVar[bool]

    @property
    def texts(self) -> int:
        """How many texts of each prompt."""
        return self.n or 1

    @property
    def most(self) -> tuple[str, int | None]:
        """The field that says the most tokens of a text, and its value."""
        return "max_tokens", self.max_tokens

    @property
    def prompts(self) -> Sequence[Prompt]:
        """What the texts follow."""
        raise AssertionError("of the two routes")

    @property
    def stops(self) -> list[str]:
        """The strings that end a text."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with the tokens of the request."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def first_seed(self) -> int:
        """Return the seed of the first text of a prompt: the request's, or a random one."""
        return seed_or_random(self.seed)

    def text_options(self, seed: int) -> dict[str, Any]:
        """Return the options for `Call.of`. Raises UserError as `options`."""
        _, most = self.most
        return {**self.options(seed), **({} if most is None else {"max_tokens": most})}


class CompletionRequest(TextRequest, CompletionNeutral):
    """A text to continue, as it is."""

    prompt: _Prompts = Field(description="A text, its token ids, or up to 64 of them. It is continued as it is.")

    chat: ClassVar[bool] = False

    @property
    def prompts(self) -> Sequence[Prompt]:
        """The texts to continue."""
        return read_prompts(self.prompt)


class ChatRequest(TextRequest, ChatNeutral):
    """A chat, whose next message is written."""

    messages: Annotated[
        list[ChatMessage],
        Field(min_length=int(limits.CHAT_MESSAGES.low), max_length=int(limits.CHAT_MESSAGES.high)),
    ] = Field(description="The chat so far, read with the engine's chat template.")
    max_completion_tokens: Annotated[int, Within(limits.TEXT_TOKENS)] | None = Field(
        None, description="Another name of max_tokens."
    )

    chat: ClassVar[bool] = True

    @property
    def most(self) -> tuple[str, int | None]:
        """The field that says the most tokens of a text, and its value."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens

    @property
    def prompts(self) -> Sequence[Prompt]:
        """The chat."""
        return [[{"role": one.role, "content": one.text} for one in self.messages]]


Kind = TypeVar("Kind", CompletionRequest, ChatRequest)


def read_text_request(body: bytes, kind: type[Kind]) -> Kind:
    """Return the request of a body. kind: of which route. Raises ApiError."""
    data = read_object(body)
    try:
        check_names(data, sorted(kind.model_fields, key=NEUTRAL.__contains__))
        if kind.chat:
            data = {**data, "messages": read_messages(data.get("messages"))}
        else:
            read_prompts(data.get("prompt"))
        read_stop(data.get("stop"))
        request = kind.model_validate(data)
        _check(request)
    except ValidationError as error:
        raise _first_problem(error, data, kind) from None
    except UserError as error:
        raise of_chat(refused(error)) if kind.chat else refused(error) from None
    return request


def of_chat(error: ApiError) -> ApiError:
    """Return an error about a chat: what engines call its prompt are its messages."""
    return replace(error, param="messages") if error.param == "prompt" else error


def _check(request: CompletionRequest | ChatRequest) -> None:
    """Raise UserError or ApiError for values that exclude each other."""
    if request.stream_options is not None and not request.stream:
        raise invalid("stream_options", "a stream", "a plain request", "add stream: true")
    if isinstance(request, ChatRequest) and None not in (request.max_tokens, request.max_completion_tokens):
        raise invalid("max_tokens", "max_tokens or max_completion_tokens", "both", "drop one")
    _ = Call.of("", request.text_options(0))


def _first_problem(error: ValidationError, data: dict[str, Any], kind: type[BaseModel]) -> ApiError:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0])
    if name in SECTIONS:  # a union: each branch has a complaint of its own
        return invalid(name, "a text or an object", "another value")
    problem = next(one for one in problems_of(error, data, kind) if str(one.path[0]) == name)
    if name in NEUTRAL:
        return invalid(name, "nothing, or what changes nothing", show(data[name]), "this server does not have it")
    return invalid(".".join(map(str, problem.path)), problem.expected, problem.found, problem.fix)
