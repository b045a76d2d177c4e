"""Answers a request for images or texts: whole, or as a stream; and ends it when its client leaves.

Knows HTTP. Does not know what is asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from fastapi import Request, Response

from coolsd_rt.serve.event_stream import EventStream, unless_left
from coolsd_rt.serve.messages import OfOrder

First = tuple[int, OfOrder] | None


class Answering(Protocol):
    """A `Commission`, of images or of texts."""

    async def first(self) -> First:
        """Wait a moment for the first message."""

    def events(self, first: First) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Yield the events of a stream."""

    async def answer(self) -> dict[str, Any]:
        """Return the whole answer."""

    def close(self) -> None:
        """Free what the request still has."""


async def answer_of(request: Request, commission: Answering, stream: bool) -> Response:
    """Return the answer of a commission. Raises ApiError, or ClientLeft."""
    try:
        if stream:
            first = await unless_left(request.receive, commission.first())
            return EventStream(commission.events(first), commission.close)
        document = await unless_left(request.receive, commission.answer())
    except BaseException:
        commission.close()
        raise
    return Response(await asyncio.to_thread(_text, document), media_type="application/json")


def _text(document: dict[str, Any]) -> bytes:
    return json.dumps(document, allow_nan=False).encode()
