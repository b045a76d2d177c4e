"""What a server is put through: each function returns JSON data of its figures.

Knows load and what is to be counted. Does not know how a server is started.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import httpx
import numpy as np
from scipy import stats

from coolsd_rt.cli.terminal import note
from tools.load.clients import HUNG, Outcome, ask, leave, nonsense, read_slowly, send_raw, send_slowly
from tools.load.server import LoadedServer

PROMPTS = ["red apple", "rocket", "sunflower", "penguin", "banana", "top hat", "dog face", "mushroom"]
_SAMPLE_SECONDS = 5.0
_PERIOD = 60.0  # seconds of rest after clients have left, at most


def _client(server: LoadedServer) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    return httpx.AsyncClient(base_url=server.url, timeout=None, limits=limits)


def _body(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt": PROMPTS[number % len(PROMPTS)], "seed": number, **more}


def _counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return dict(sorted(Counter(one.status for one in outcomes).items()))


def _percentiles(outcomes: Sequence[Outcome]) -> dict[str, float]:
    seconds = [one.seconds for one in outcomes if one.status == "200"]
    return {f"p{p}": float(np.percentile(seconds, p)) for p in (50, 95, 99)} if seconds else {}


async def capacity(server: LoadedServer, seconds: float, clients: int) -> float:
    """Return images a second with all slots busy: `clients` that ask again as soon as they have an answer."""
    end, done = time.monotonic() + seconds, 0

    async def again(first: int) -> None:
        nonlocal done
        number = first
        while time.monotonic() < end:
            outcome = await ask(client, _body(number))
            done += outcome.status == "200"  # not in one line: the sum would be read before the wait
            number += clients

    began = time.monotonic()
    async with _client(server) as client:
        await asyncio.gather(*(again(k) for k in range(clients)))
    return done / (time.monotonic() - began)


async def steady(server: LoadedServer, load: float, minutes: float, clients: int, seed: int) -> dict[str, Any]:
    """Images at random (Poisson) at a share of capacity: latency, statuses, and the slope of each process's memory."""
    rate = load * await capacity(server, 30.0, clients)
    note(f"{rate:.2f} images a second arrive")
    chance, tasks, memory = random.Random(seed), [], list[tuple[float, dict[str, int]]]()
    began = time.monotonic()

    async def watch() -> None:
        while True:
            memory.append((time.monotonic() - began, server.memory()))
            await asyncio.sleep(_SAMPLE_SECONDS)

    watching = asyncio.create_task(watch())
    async with _client(server) as client:
        number = 0
        while time.monotonic() - began < minutes * 60:
            await asyncio.sleep(chance.expovariate(rate))
            stream = number % 4 == 0
            more = {"stream": True, "partial_images": 2} if stream else {}
            tasks.append(asyncio.create_task(ask(client, _body(number, **more))))
            number += 1
        outcomes = list(await asyncio.gather(*tasks))
    watching.cancel()
    slopes = {name: _slope(memory, name) for name in ("http", "engine")}
    return {
        "minutes": minutes, "load": load, "images_per_second": rate, "requests": len(outcomes),
        "statuses": _counts(outcomes), "latency": _percentiles(outcomes), "memory": slopes,
    }  # fmt: skip


def _slope(memory: Sequence[tuple[float, dict[str, int]]], name: str) -> dict[str, Any]:
    """Return a process's memory in MB at the end, and its slope in MB an hour after the first fifth, with 95% ends."""
    points = [(at, held[name] / 1e6) for at, held in memory if name in held]
    points = points[len(points) // 5 :]
    if len(points) < 3:
        return {}
    at, held = zip(*points, strict=True)
    found = stats.theilslopes(held, np.array(at) / 3600, 0.95)
    return {
        "mb": held[-1],
        "mb_an_hour": float(found.slope),
        "low": float(found.low_slope),
        "high": float(found.high_slope),
    }


async def churn(server: LoadedServer, clients: int, seed: int) -> dict[str, Any]:
    """Clients that connect at random within half a minute and leave at random, some of them before they are drawn."""
    chance = random.Random(seed)

    async def one(number: int) -> Outcome:
        await asyncio.sleep(chance.uniform(0, 30))
        more = {"stream": True, "partial_images": 2} if number % 2 else {}
        async with _client(server) as client:
            return await leave(client, _body(number, **more), chance.uniform(0, 10))

    drawn = server.metric("images_total")
    outcomes = list(await asyncio.gather(*(one(k) for k in range(clients))))
    began = time.monotonic()
    while not server.idle() and time.monotonic() - began < _PERIOD:
        await asyncio.sleep(0.02)
    rest = time.monotonic() - began
    async with _client(server) as client:
        after = await ask(client, _body(0))
    return {
        "clients": clients, "statuses": _counts(outcomes), "images_drawn": server.metric("images_total") - drawn,
        "seconds_until_idle": rest, "after": after.status, "seconds_after": after.seconds,
    }  # fmt: skip


async def kill(server: LoadedServer, clients: int, kills: int, seed: int) -> dict[str, Any]:
    """Clients that ask again and again while the engine's process is killed: no request may hang."""
    chance, outcomes, ready = random.Random(seed), list[Outcome](), list[float]()
    ended = asyncio.Event()

    async def again(first: int) -> None:
        number = first
        while not ended.is_set():
            more = {"stream": True, "partial_images": 1} if number % 2 else {}
            outcomes.append(await ask(client, _body(number, **more)))
            number += clients
            if outcomes[-1].status == "503":
                await asyncio.sleep(0.2)

    async with _client(server) as client:
        asking = [asyncio.create_task(again(k)) for k in range(clients)]
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(3, 8))
            os.kill(server.processes()["engine"], signal.SIGKILL)
            await asyncio.sleep(0.1)
            ready.append(await asyncio.to_thread(server.seconds_until, "/ready"))
        await asyncio.sleep(3)
        ended.set()
        await asyncio.gather(*asking)
        after = await ask(client, _body(0))
    slowest = max(one.seconds for one in outcomes)
    return {
        "kills": kills, "requests": len(outcomes), "statuses": _counts(outcomes), "slowest_seconds": slowest,
        "hung": sum(one.seconds >= HUNG for one in outcomes), "seconds_until_ready": ready, "after": after.status,
    }  # fmt: skip


async def slow(server: LoadedServer, readers: int, requests: int) -> dict[str, Any]:
    """Requests one after another, alone and beside clients that read and send slowly."""
    alone, beside = await _one_by_one(server, requests), list[Outcome]()
    until, drawn = asyncio.Event(), server.metric("images_total")
    body = {"prompt": PROMPTS[0], "seed": 1, "stream": True, "partial_images": 3}
    reading = [asyncio.create_task(read_slowly(server.url, body, until)) for _ in range(readers)]
    while server.metric("images_total") < drawn + readers:  # their images are drawn first, and wait for them
        await asyncio.sleep(0.1)
    sending = [asyncio.create_task(send_slowly(server.url, until)) for _ in range(readers)]
    await asyncio.sleep(0.5)
    beside = await _one_by_one(server, requests)
    await asyncio.sleep(12)  # longer than a body may take
    until.set()
    read = await asyncio.gather(*reading)
    answers = Counter(await asyncio.gather(*sending))
    return {
        "readers": readers, "senders": readers, "alone": _percentiles(alone), "beside": _percentiles(beside),
        "statuses": _counts(beside), "bytes_read": int(sum(read)), "senders_answered": dict(answers),
    }  # fmt: skip


async def _one_by_one(server: LoadedServer, requests: int) -> list[Outcome]:
    async with _client(server) as client:
        return [await ask(client, _body(k)) for k in range(requests)]


async def malformed(server: LoadedServer, requests: int, seed: int) -> dict[str, Any]:
    """Requests that are wrong. None may be answered with a 5xx, and the server draws afterwards."""
    statuses: Counter[str] = Counter()
    waiting = list(islice(nonsense(seed), requests))

    async def sender() -> None:
        while waiting:
            statuses[await send_raw(server.url, waiting.pop())] += 1

    began = time.monotonic()
    await asyncio.gather(*(sender() for _ in range(32)))
    took = time.monotonic() - began
    async with _client(server) as client:
        after = await ask(client, _body(0))
    return {"requests": requests, "statuses": dict(sorted(statuses.items())), "seconds": took, "after": after.status}
