"""A request's images, from asking an engine for them to the documents of the answer.

Whatever ends the request (an answer, an error, a deadline, a client that left) frees the slots of its images. Knows
engines' hosts and the shapes of answers. Does not know HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

from coolsd_rt.runtime.randomness import SEED_LIMIT
from coolsd_rt.serve import api_errors
from coolsd_rt.serve.api_errors import ApiError, invalid
from coolsd_rt.serve.drawer import Draw, Drawer, ImageOrder, NotReady, QueueFull
from coolsd_rt.serve.image_request import GenerationRequest
from coolsd_rt.serve.messages import (
    FailedMessage,
    FinalMessage,
    OfImage,
    PartialMessage,
    ProgressMessage,
    RefusedMessage,
)
from coolsd_rt.serve.metrics import Reason, ServerMetrics
from coolsd_rt.serve.pictures import ImageFormat, encode_image

FIRST_WAIT = 1.0  # seconds in which an engine has refused what it refuses
QUIET = 15.0  # seconds without an event after which a stream shows that it lives


class Commission:
    """The images of one request. Created by `Commission.taken`, which takes their places in the queue."""

    def __init__(self, host: Drawer, request: GenerationRequest, metrics: ServerMetrics, seconds: float) -> None:
        self._host, self._request, self._metrics = host, request, metrics
        self._seconds = seconds
        self._began, self._created = time.monotonic(), int(time.time())
        self._kind: ImageFormat = request.output_format or "png"
        self._draws: list[Draw] = []
        self._seen = self._closed = False

    @staticmethod
    def taken(host: Drawer, request: GenerationRequest, metrics: ServerMetrics, most_seconds: float) -> Commission:
        """Check what depends on the engine, and ask it for the images. Raises ApiError."""
        if request.size not in (None, "auto", host.engine.size):
            raise invalid("size", f"auto or {host.engine.size}", "another size", "an engine has one size")
        if request.timeout is not None and request.timeout > most_seconds:
            raise invalid("timeout", f"at most the server's {most_seconds:g} seconds", f"{request.timeout:g}")
        if request.images > host.room:
            raise invalid("n", f"at most {host.room}, the room of this server", str(request.images))
        made = Commission(host, request, metrics, request.timeout or most_seconds)
        try:
            host.check_room(request.images)
            made._ask()
        except QueueFull as full:
            raise api_errors.queue_full(full.seconds) from None
        except NotReady as soon:
            raise api_errors.unavailable(_why(host), "engine_not_ready", soon.seconds) from None
        return made

    def _ask(self) -> None:
        request, seed = self._request, self._request.first_seed()
        for k in range(request.images):
            options = request.options((seed + k) % SEED_LIMIT)
            order = ImageOrder(request.prompt, options, request.partial_images or 0, bool(request.progress))
            self._draws.append(self._host.draw(order))

    async def answer(self) -> dict[str, Any]:
        """Wait for all images and return the answer. Raises ApiError."""
        with self._counted():
            async with self._deadline():
                finals = [await self._final(draw) for draw in self._draws]
                images = [await self._encoded(final) for final in finals]
            return {
                "created": self._created,
                "data": [{"b64_json": image} for image in images],
                **self._looks,
                "usage": _usage(finals),
                "coolsd": {
                    "model": self._host.engine.name,
                    "engine": self._host.engine.fingerprint,
                    "images": [final.figures for final in finals],
                    "warnings": _warnings(finals),
                },
            }

    async def first(self) -> OfImage | None:
        """Wait a moment for the first message of a stream. Raises ApiError if the engine refuses the request."""
        with self._counted(at_end=False):
            try:
                async with asyncio.timeout(min(FIRST_WAIT, self._left)):
                    message = await self._draws[0].next()
            except TimeoutError:
                return None
            if isinstance(message, RefusedMessage | FailedMessage):
                raise _lost(message)
            return message

    async def events(self, first: OfImage | None) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Yield the events of a stream, and None where nothing has happened for a while. Raises ApiError."""
        index, message = 0, first
        with self._counted():
            while not isinstance(message, FinalMessage):
                if isinstance(message, PartialMessage):
                    yield await self._partial(message, index)
                    index += 1
                elif isinstance(message, ProgressMessage):
                    yield self._progress(message)
                elif isinstance(message, RefusedMessage | FailedMessage):
                    raise _lost(message)
                if (message := await self._next()) is None:
                    yield None
            yield await self._completed(message)

    async def _next(self) -> OfImage | None:
        """Wait for a message, but not for long; None if there is none. Raises ApiError when the time is over."""
        if (left := self._left) <= 0:
            raise api_errors.deadline(self._seconds)
        try:
            # Not around the whole stream: a timeout must not strike while its reader is written to.
            async with asyncio.timeout(min(QUIET, left)):
                return await self._draws[0].next()
        except TimeoutError:
            return None

    @property
    def _left(self) -> float:
        return self._seconds - (time.monotonic() - self._began)

    async def _final(self, draw: Draw) -> FinalMessage:
        while True:
            message = await draw.next()
            if isinstance(message, FinalMessage):
                self._count(message)
                return message
            if isinstance(message, RefusedMessage | FailedMessage):
                raise _lost(message)

    def _count(self, final: FinalMessage) -> None:
        self._see()
        self._metrics.image(self._host.engine.name, final.figures, final.text_tokens)

    def _see(self) -> None:
        if not self._seen:
            self._seen = True
            self._metrics.first_image(self._host.engine.name, time.monotonic() - self._began)

    async def _encoded(self, final: FinalMessage) -> str:
        return await self._encode(final.pixels, final.side, final.provenance)

    async def _encode(self, pixels: bytes, side: int, provenance: Any = None) -> str:
        quality = 100 if self._request.output_compression is None else self._request.output_compression
        return await asyncio.to_thread(encode_image, pixels, side, self._kind, quality, provenance)

    async def _partial(self, message: PartialMessage, index: int) -> dict[str, Any]:
        self._see()
        return {
            "type": "image_generation.partial_image",
            "b64_json": await self._encode(message.pixels, message.side),
            "partial_image_index": index,
            "created_at": self._created,
            **self._looks,
            "coolsd": {"rows": message.rows, "total_rows": self._host.engine.rows},
        }

    def _progress(self, message: ProgressMessage) -> dict[str, Any]:
        return {
            "type": "image_generation.progress",
            "decided": message.decided,
            "tokens": self._host.engine.opened.description.dims.tokens,
            "accepted": message.accepted,
            "num_drafts": message.num_drafts,
            "seconds": message.seconds,
        }

    async def _completed(self, final: FinalMessage) -> dict[str, Any]:
        self._count(final)
        whose = {"model": self._host.engine.name, "engine": self._host.engine.fingerprint}
        return {
            "type": "image_generation.completed",
            "b64_json": await self._encoded(final),
            "created_at": self._created,
            **self._looks,
            "usage": _usage([final]),
            "coolsd": {**final.figures, **whose, "warnings": _warnings([final])},
        }

    @property
    def _looks(self) -> dict[str, str]:
        engine = self._host.engine
        return {"size": engine.size, "quality": "high", "background": "opaque", "output_format": self._kind}

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        """Turn the end of the request's time into an error."""
        try:
            async with asyncio.timeout(self._left):
                yield
        except TimeoutError:
            raise api_errors.deadline(self._seconds) from None

    @contextlib.contextmanager
    def _counted(self, *, at_end: bool = True) -> Iterator[None]:
        """Count how the request ended, and free what it still has. at_end: also if nothing is raised."""
        try:
            yield
        except ApiError as error:
            self._close("timeout" if error.status == 504 else "error")
            raise
        except Exception:
            self._close("error")
            raise
        except BaseException:
            self.close()
            raise
        if at_end:
            self._close("stop")

    def close(self) -> None:
        """Free what the request still has, because nobody waits for it. Without effect once it has ended."""
        self._close("abort")

    def _close(self, reason: Reason) -> None:
        if self._closed:
            return
        self._closed = True
        for draw in self._draws:
            self._host.cancel(draw)
        self._metrics.request(self._host.engine.name, reason, time.monotonic() - self._began)


def _lost(message: RefusedMessage | FailedMessage) -> ApiError:
    return api_errors.refused(message) if isinstance(message, RefusedMessage) else api_errors.engine_failed()


def _why(host: Drawer) -> str:
    if host.state == "loading":
        return f"the engine {host.engine.name} is loading"
    return f"the engine {host.engine.name} starts again: {host.reason}"


def _usage(finals: list[FinalMessage]) -> dict[str, Any]:
    text = finals[0].text_tokens
    output = sum(int(final.figures["tokens"]) for final in finals)
    details = {"image_tokens": 0, "text_tokens": text}
    return {
        "input_tokens": text,
        "input_tokens_details": details,
        "output_tokens": output,
        "total_tokens": text + output,
    }


def _warnings(finals: list[FinalMessage]) -> list[str]:
    return list(dict.fromkeys(line for final in finals for line in final.warnings))
