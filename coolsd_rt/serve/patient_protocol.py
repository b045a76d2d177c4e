"""uvicorn's HTTP protocol with an end to its patience: headers have to arrive, and connections are limited.

uvicorn itself waits for the headers of a request for ever. Knows uvicorn's protocol. Does not know the application.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from coolsd_rt.serve.api_errors import ApiError
from coolsd_rt.serve.guard import MOST_CONNECTIONS, new_request_id

HEADER_SECONDS = 10.0
"""Seconds from the first byte of a request (of a new connection: from its begin) to the end of its headers."""


class PatientProtocol(H11Protocol):
    """Closes a connection whose request does not begin."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; end at once if there are far too many connections to say so."""
        super().connection_made(transport)
        if len(self.connections) > 2 * MOST_CONNECTIONS:
            transport.abort()
            return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self.timeout_keep_alive_task is None and self._patience is None:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in the shape of all errors."""
        body = json.dumps(ApiError(400, "expected a request of HTTP/1.1, found something else").body).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", new_request_id().encode()),
            (b"connection", b"close"),
        ]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE, h11.SEND_BODY):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _wait(self) -> None:
        self._patience = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
