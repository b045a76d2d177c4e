"""What every request passes, before any route: a request id, the key, how many there are, and a line of the log.

All paths need the key but those of `OPEN`, so that a route that is added later is guarded. Knows ASGI. Does not know
routes or images.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coolsd_rt.serve import api_errors
from coolsd_rt.serve.api_errors import ApiError
from coolsd_rt.serve.log_lines import LogLines

OPEN = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json", "/favicon.ico"})
OPEN_BELOW = ("/static/", "/docs/")
MOST_CONNECTIONS = 1000
HEADER_BYTES = 16 << 10  # of a request
_OWN_NAMES = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})
NOTES = "coolsd_notes"  # key of the scope
_POLICY = b"default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
POLICY = "content-security-policy"


@dataclass
class RequestNotes:
    """What a route tells of its request, for the log."""

    model: str | None = None
    images: int | None = None
    texts: int | None = None


class Guard:
    """An ASGI application around another. key: None if the server has none. connections: how many are open.

    local: the server is for this machine alone. Without a key it then answers to this machine's own names only: a page
    of another site whose name was made to lead here would otherwise be one with the server for a browser.
    """

    def __init__(
        self, app: ASGIApp, key: bytes | None, log: LogLines, connections: Callable[[], int], local: bool = False
    ) -> None:
        self._app, self._key, self._log, self._connections = app, key, log, connections
        self._own_names_only = local and key is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":  # there are no others: uvicorn is told so
            return
        call = _Call(scope, send)
        try:
            if (error := self._refusal(scope)) is not None:
                await _respond(error, scope, receive, call.send)
            else:
                await self._app(scope, receive, call.send)
        except Exception as error:
            self._log.failure(f"request {call.number} failed", error)
            if call.status is None:
                await _respond(api_errors.internal_error(), scope, receive, call.send)
        finally:
            notes = call.notes
            self._log.info(
                "request",
                request_id=call.number,
                method=str(scope["method"])[:16],
                path=_short(scope["path"]),
                status=call.status,
                seconds=round(time.monotonic() - call.began, 4),
                model=notes.model,
                images=notes.images,
                texts=notes.texts,
            )

    def _refusal(self, scope: Scope) -> ApiError | None:
        if self._connections() > MOST_CONNECTIONS:
            return api_errors.unavailable("too many connections are open", "too_many_connections", 1)
        if sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope["path"]) > HEADER_BYTES:
            return api_errors.headers_too_large(HEADER_BYTES)
        if self._own_names_only and not all(_is_own(value) for name, value in scope["headers"] if name == b"host"):
            return api_errors.another_host()
        path = scope["path"]
        if self._key is None or path in OPEN or path.startswith(OPEN_BELOW):
            return None
        return None if self._has_key(scope) else api_errors.unauthorized()

    def _has_key(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        right = hmac.compare_digest(key.strip(), self._key or b"")  # takes as long for any key
        return right and scheme.lower() == b"bearer"


def _is_own(host: bytes) -> bool:
    """Whether a Host header, with or without a port, is a name of this machine's loopback."""
    return re.sub(rb":\d*$", b"", host.strip().lower()) in _OWN_NAMES


class _Call:
    """One request: its number, and what is sent."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.number, self.began = new_request_id(), time.monotonic()
        self.status: int | None = None
        self.notes = scope[NOTES] = RequestNotes()
        self._send = send

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", []), (b"x-request-id", self.number.encode()), *_HEADERS]
            if not any(name == POLICY.encode() for name, _ in headers):
                headers.append((POLICY.encode(), _POLICY))
            message = {**message, "headers": headers}
        await self._send(message)


def new_request_id() -> str:
    """Return a random id, which tells nothing and collides with no other."""
    return f"req_{secrets.token_hex(16)}"


async def _respond(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    await error_response(error)(scope, receive, send)


def error_response(error: ApiError) -> JSONResponse:
    """Return an error as an answer."""
    return JSONResponse(error.body, error.status, error.headers)


def _short(path: str) -> str:
    """Return a path for a line of the log: no spaces, no control characters, not long."""
    return path[:200].encode("unicode_escape").decode("ascii").replace(" ", "%20")
