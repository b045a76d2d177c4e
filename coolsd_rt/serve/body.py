"""Reads the body of a request, as far as it is small, JSON, and there in time.

Knows HTTP. Does not know what is in a body.
"""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from coolsd_rt.serve import api_errors
from coolsd_rt.serve.event_stream import ClientLeft

BODY_BYTES = 64 << 10
BODY_SECONDS = 10.0


async def read_body(request: Request) -> bytes:
    """Return the whole body. Raises ApiError, or ClientLeft."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise api_errors.unsupported_media()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES:
                    raise api_errors.too_large(BODY_BYTES)
    except TimeoutError:
        raise api_errors.too_slow(BODY_SECONDS) from None
    except ClientDisconnect:
        raise ClientLeft from None
    return bytes(body)
