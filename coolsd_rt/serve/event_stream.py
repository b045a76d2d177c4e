"""Answers that take long: a stream of server-sent events, and plain work that ends when its client has left.

Knows ASGI. Does not know what is drawn.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from coolsd_rt.serve.api_errors import ApiError, internal_error

T = TypeVar("T")
SEND_SECONDS = 60.0  # that a client may take to read what was written
Events = AsyncGenerator[dict[str, Any] | None, None]


class ClientLeft(Exception):
    """Nobody waits for the answer."""


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_left(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`; cancel it and raise ClientLeft when the client leaves. The body has to be read."""
    task, left = asyncio.create_task(work), asyncio.create_task(_until_left(receive))
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeft
    finally:
        for one in (task, left):
            one.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


class EventStream(Response):
    """Sends events as they come. An ApiError of theirs is the last event; None is a comment, which keeps it alive.

    on_end: called when nobody will ask for events any more, whether or not any was sent.
    """

    media_type = "text/event-stream"

    def __init__(self, events: Events, on_end: Callable[[], None]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events, self._on_end = events, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, until the client leaves."""
        try:
            await unless_left(receive, self._send_all(send))
        except (ClientLeft, TimeoutError):
            pass  # it left, or reads nothing
        finally:
            self._on_end()

    async def _send_all(self, send: Send) -> None:
        await self._write(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._events) as events:
            failure: Exception | None = None
            try:
                async for event in events:
                    await self._tell(send, b": waiting\n\n" if event is None else _data(event))
            except ApiError as error:
                await self._tell(send, _data(error.body))
            except TimeoutError:
                raise
            except Exception as error:
                await self._tell(send, _data(internal_error().body))
                failure = error
        await self._tell(send, b"data: [DONE]\n\n")
        await self._write(send, {"type": "http.response.body", "body": b"", "more_body": False})
        if failure is not None:
            raise failure

    async def _tell(self, send: Send, data: bytes) -> None:
        await self._write(send, {"type": "http.response.body", "body": data, "more_body": True})

    async def _write(self, send: Send, message: Any) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await send(message)


def _data(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document, allow_nan=False)}\n\n".encode()
