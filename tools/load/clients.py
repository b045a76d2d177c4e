"""Clients of a server: one that asks and waits, one that leaves, one that reads slowly, one that sends nonsense.

Knows HTTP. Does not know processes or figures.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

PATH = "/v1/images/generations"
HUNG = 120.0  # seconds after which a request counts as hung


@dataclass(frozen=True)
class Outcome:
    """How a request ended: the status of its answer, "left", "cut" (the connection ended early) or "hung"."""

    status: str
    seconds: float


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Outcome:
    """Draw and wait for the whole answer. A stream that ends with an error event counts as its code."""
    began = time.monotonic()
    status = "hung"
    try:
        async with asyncio.timeout(HUNG):
            answer = await client.post(PATH, json=body)
            status = str(answer.status_code)
            if answer.status_code == 200 and body.get("stream") and "data: [DONE]" not in answer.text:
                status = "error event" if '"error"' in answer.text else "cut"
    except TimeoutError:
        pass
    except httpx.HTTPError:
        status = "cut"
    return Outcome(status, time.monotonic() - began)


async def leave(client: httpx.AsyncClient, body: dict[str, Any], seconds: float) -> Outcome:
    """Draw, and go away after some seconds if there is no answer by then."""
    began = time.monotonic()
    try:
        answer = await asyncio.wait_for(client.post(PATH, json=body), seconds)
    except TimeoutError:
        return Outcome("left", time.monotonic() - began)
    except httpx.HTTPError:
        return Outcome("cut", time.monotonic() - began)
    return Outcome(str(answer.status_code), time.monotonic() - began)


async def read_slowly(url: str, body: dict[str, Any], until: asyncio.Event) -> int:
    """Ask for a stream and read 64 bytes a second of it. Returns the number of bytes that were read."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=256)
    data = json.dumps(body).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    count = 0
    while not until.is_set():
        part = await reader.read(64)
        if not part:
            break
        count += len(part)
        await asyncio.sleep(1.0)
    writer.close()
    return count


async def send_slowly(url: str, until: asyncio.Event) -> str:
    """Send a request a byte a second. Returns the first line of the answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    )
    answer = asyncio.create_task(reader.readline())
    try:
        writer.write(head.encode())
        while not until.is_set() and not answer.done():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(1.0)
        return (await answer).decode(errors="replace").strip() if answer.done() else "none yet"
    except ConnectionError:
        return "closed"
    finally:
        answer.cancel()
        writer.close()


async def send_raw(url: str, data: bytes) -> str:
    """Send bytes; return the status of the answer, or "closed" if the server ended the connection without one."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(data)
        writer.write_eof()
        line = await asyncio.wait_for(reader.readline(), HUNG)
    except TimeoutError:
        return "hung"
    except ConnectionError:
        return "closed"
    finally:
        writer.close()
    words = line.split()
    return words[1].decode() if len(words) > 1 else "closed"


def nonsense(seed: int) -> Iterator[bytes]:
    """Yield malformed requests for ever: bodies, values, lengths, heads and bytes that are wrong in one way or more."""
    chance = random.Random(seed)
    while True:
        yield _one(chance)


_VALUES: list[Any] = [
    None, True, -1, 0, 11, 1e308, "", "x" * 5000, "\u0000", "\ud800", [], {}, [[]] * 50, {"a": {"b": []}}, "1024x1024",
    2**70, -0.5, "NaN",
]  # fmt: skip
_FIELDS = [
    "prompt", "model", "n", "size", "response_format", "output_format", "output_compression", "quality", "background",
    "moderation", "stream", "partial_images", "seed", "guidance_scale", "temperature", "top_k", "top_p", "schedule",
    "delta", "acceptance", "resampler", "pacing", "draft_length", "plain", "draft", "timeout", "progress", "wrong",
]  # fmt: skip
_WORDS = [
    "",
    "{",
    "[]",
    "null",
    '{"prompt": NaN}',
    '{"prompt": 1e999}',
    "[" * 3000,
    '{"prompt": "a", "prompt": 3}',
    "\x00\x01",
]


def _one(chance: random.Random) -> bytes:
    body = {"prompt": 3, **{chance.choice(_FIELDS): chance.choice(_VALUES) for _ in range(chance.randint(1, 4))}}
    if isinstance(body["prompt"], str) and body["prompt"]:
        body["n"] = 99  # so that none of them is drawn
    text = json.dumps(body) if chance.random() < 0.6 else chance.choice(_WORDS)
    data = text.encode("utf-8", "surrogatepass")
    kind = chance.random()
    if kind < 0.15:
        data = bytes(chance.randrange(256) for _ in range(len(data)))
    method, path = (
        chance.choice(["POST"] * 8 + ["GET", "PUT"]),
        chance.choice([PATH] * 8 + ["/v1/none", "/../etc", "/%00"]),
    )
    length = len(data) if chance.random() < 0.8 else chance.choice([0, 1, len(data) + 5, -3, 10**9, "ten"])
    type_ = chance.choice(["application/json"] * 5 + ["text/plain", "", "application/json; charset=utf-7"])
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {type_}\r\nContent-Length: {length}\r\n"
    if chance.random() < 0.1:
        head += chance.choice(
            ["Transfer-Encoding: chunked\r\n", "X: " + "y" * 20000 + "\r\n", "no colon\r\n", "\x7f: 1\r\n"]
        )
    whole = (head + "\r\n").encode("latin-1") + data
    return whole[: chance.randrange(len(whole))] if chance.random() < 0.1 else whole
