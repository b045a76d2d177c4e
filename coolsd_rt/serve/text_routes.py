"""The routes of texts, and their part of the OpenAPI document.

Knows HTTP. Does not know processes or how a text is written.
"""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from coolsd_rt.serve import text_answers
from coolsd_rt.serve.body import read_body
from coolsd_rt.serve.guard import NOTES
from coolsd_rt.serve.long_answers import answer_of
from coolsd_rt.serve.served import Served
from coolsd_rt.serve.text_commission import TextCommission
from coolsd_rt.serve.text_request import ChatRequest, CompletionRequest, read_text_request


def add_texts(app: FastAPI, served: Served) -> None:
    """Add the routes."""

    @app.post(
        "/v1/chat/completions",
        responses=text_answers.CHATS,
        openapi_extra=text_answers.CHAT_BODY,
        response_class=JSONResponse,
        tags=["texts"],
    )
    async def chat(request: Request) -> Response:
        """Write the next message of a chat."""
        return await _written(served, request, ChatRequest)

    @app.post(
        "/v1/completions",
        responses=text_answers.COMPLETIONS,
        openapi_extra=text_answers.COMPLETION_BODY,
        response_class=JSONResponse,
        tags=["texts"],
    )
    async def completions(request: Request) -> Response:
        """Continue texts."""
        return await _written(served, request, CompletionRequest)


async def _written(served: Served, request: Request, kind: type[ChatRequest] | type[CompletionRequest]) -> Response:
    body = await read_body(request)
    asked: ChatRequest | CompletionRequest
    asked = read_text_request(body, ChatRequest) if kind is ChatRequest else read_text_request(body, CompletionRequest)
    host = served.host_for("text", asked.model)
    notes = request.scope[NOTES]
    notes.model, notes.texts = host.engine.name, asked.texts * len(asked.prompts)
    served.check_going()
    commission = TextCommission.taken(host, asked, served.metrics, served.seconds)
    return await answer_of(request, commission, bool(asked.stream))
