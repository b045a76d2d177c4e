"""A request's images, from asking an engine for them to the documents of the answer.

Knows the shapes of answers with images. Does not know HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from coolsd_rt.runtime.randomness import SEED_LIMIT
from coolsd_rt.serve.api_errors import invalid
from coolsd_rt.serve.commission import Commission, check_seconds
from coolsd_rt.serve.drawer import Drawer, ImageOrder
from coolsd_rt.serve.image_request import GenerationRequest
from coolsd_rt.serve.messages import FinalMessage, OfOrder, PartialMessage, ProgressMessage
from coolsd_rt.serve.metrics import ServerMetrics
from coolsd_rt.serve.pictures import ImageFormat, encode_image


class ImageCommission(Commission):
    """The images of one request. Created by `ImageCommission.taken`, which takes their places in the queue."""

    def __init__(self, host: Drawer, request: GenerationRequest, metrics: ServerMetrics, seconds: float) -> None:
        super().__init__(host, metrics, seconds)
        self._request = request
        self._kind: ImageFormat = request.output_format or "png"

    @staticmethod
    def taken(host: Drawer, request: GenerationRequest, metrics: ServerMetrics, most_seconds: float) -> ImageCommission:
        """Check what depends on the engine, and ask it for the images. Raises ApiError."""
        if request.size not in (None, "auto", host.engine.size):
            raise invalid("size", f"auto or {host.engine.size}", "another size", "an engine has one size")
        made = ImageCommission(host, request, metrics, check_seconds(request.timeout, most_seconds))
        made.ask(made._orders(), "n")
        return made

    def _orders(self) -> list[ImageOrder]:
        request, seed = self._request, self._request.first_seed()
        every = [request.options((seed + k) % SEED_LIMIT) for k in range(request.images)]
        partial, progress = request.partial_images or 0, bool(request.progress)
        return [ImageOrder(request.prompt, options, partial, progress) for options in every]

    async def answer(self) -> dict[str, Any]:
        """Wait for all images and return the answer. Raises ApiError."""
        with self.counted():
            async with self.deadline():
                finals = []
                for draw in self._draws:
                    if isinstance(final := await self.last(draw), FinalMessage):
                        self._count(final)
                        finals.append(final)
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

    async def events(self, first: tuple[int, OfOrder] | None) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Yield the events of a stream, and None where nothing has happened for a while. Raises ApiError."""
        count, message = 0, first[1] if first else None
        with self.counted():
            while not isinstance(message, FinalMessage):
                if isinstance(message, PartialMessage):
                    yield await self._partial(message, count)
                    count += 1
                elif isinstance(message, ProgressMessage):
                    yield self._progress(message)
                found = await self.next()
                message = found[1] if found else None
                if message is None:
                    yield None
            yield await self._completed(message)

    def _count(self, final: FinalMessage) -> None:
        self.see()
        self._metrics.image(self._host.engine.name, final.figures, final.text_tokens)

    async def _encoded(self, final: FinalMessage) -> str:
        return await self._encode(final.pixels, final.side, final.provenance)

    async def _encode(self, pixels: bytes, side: int, provenance: Any = None) -> str:
        quality = 100 if self._request.output_compression is None else self._request.output_compression
        return await asyncio.to_thread(encode_image, pixels, side, self._kind, quality, provenance)

    async def _partial(self, message: PartialMessage, index: int) -> dict[str, Any]:
        self.see()
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
