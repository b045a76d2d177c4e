"""Errors as clients see them: OpenAI's shape, a status, and no path and no text of an exception.

Knows statuses and codes. Does not know engines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from coolsd_rt.errors import UserError
from coolsd_rt.serve.messages import RefusedMessage


@dataclass(eq=False)
class ApiError(Exception):
    """An answer that is an error. param: the field of the request that is wrong."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON document of the answer."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def invalid(param: str | None, expected: str, found: str, fix: str = "") -> ApiError:
    """Return the error for a wrong value of a field."""
    text = str(UserError(param or "the request", expected=expected, found=found, fix=fix))
    return ApiError(400, text, param=param, code="invalid_value")


def refused(error: UserError | RefusedMessage) -> ApiError:
    """Return the error for a request that an engine refuses. The field is the first word of what is wrong."""
    text = str(UserError(error.what, expected=error.expected, found=error.found, fix=error.fix))
    return ApiError(400, text, param=field_of(error.what), code="invalid_value")


_FIELDS = {
    "plain decoding": "plain",
    "the draft length": "draft_length",
    "the draft": "draft",
    "max tokens": "max_tokens",
}


def field_of(what: str) -> str | None:
    """Return the field of a request that an error's first part names."""
    if what in _FIELDS:
        return _FIELDS[what]
    if what.isidentifier():
        return what
    if what.endswith(("prompt", "prompt too long")):
        return "prompt"
    word = what.split("[", 1)[0].split(".", 1)[0]
    return word if word.isidentifier() else None


def unauthorized() -> ApiError:
    """Return the error for a missing or wrong key."""
    text = "expected the server's key in the header Authorization: Bearer KEY, found none or another"
    return ApiError(401, text, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def another_host() -> ApiError:
    """Return the error for a request to a name that is not this machine's, on a server without a key."""
    text = "expected a request to localhost or 127.0.0.1, found another Host; a server with a key answers to any"
    return ApiError(403, text, code="host_not_allowed")


def not_found(what: str, code: str | None = None, param: str | None = None) -> ApiError:
    """Return the error for something that is not there."""
    return ApiError(404, what, param=param, code=code)


def too_large(limit: int) -> ApiError:
    """Return the error for a body of too many bytes."""
    return ApiError(413, f"expected a body of at most {limit} bytes, found more", code="too_large")


def headers_too_large(limit: int) -> ApiError:
    """Return the error for headers of too many bytes."""
    return ApiError(431, f"expected headers of at most {limit} bytes, found more", headers={"connection": "close"})


def unsupported_media() -> ApiError:
    """Return the error for a body that is not said to be JSON. A page of another site cannot send what is."""
    text = "expected a body of Content-Type: application/json, found another type"
    return ApiError(415, text, code="unsupported_media_type")


def too_slow(seconds: float) -> ApiError:
    """Return the error for a body that does not arrive."""
    text = f"expected the whole body within {seconds:g} seconds, found a part"
    return ApiError(408, text, code="request_timeout", headers={"connection": "close"})


def queue_full(seconds: int) -> ApiError:
    """Return the error for a full queue."""
    text = f"as many images or texts wait as may; ask again in about {seconds} seconds"
    return ApiError(429, text, "rate_limit_error", code="queue_full", headers={"retry-after": str(seconds)})


def unavailable(reason: str, code: str, seconds: int) -> ApiError:
    """Return the error for a server or an engine that takes nothing now."""
    return ApiError(503, reason, "server_error", code=code, headers={"retry-after": str(seconds)})


def engine_failed() -> ApiError:
    """Return the error for an image or a text that was lost."""
    return ApiError(500, "the engine failed before it was done; ask again", "server_error", code="engine_failed")


def internal_error() -> ApiError:
    """Return the error for a mistake of the server."""
    return ApiError(500, "the server failed; its log says why", "server_error", code="internal_error")


def deadline(seconds: float) -> ApiError:
    """Return the error for a request that took too long."""
    text = f"the answer was not ready within {seconds:g} seconds"
    return ApiError(504, text, "server_error", code="deadline_exceeded")
