"""An engine that runs in replicas: images are asked of whichever has room, and asked for again when one is lost.

An image is a function of its prompt, seed, settings and engine, so a replica that dies costs time and nothing else: the
image is drawn anew by another. What a stream's client was told already is not told again.

Knows handles of Ray Serve. Does not know HTTP or how replicas are started.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

from coolsd_rt.cluster.serving.replica import ANOTHER, problem_of
from coolsd_rt.serve.drawer import Draw, NotReady, Order, QueueFull, State
from coolsd_rt.serve.facts import ServedEngine
from coolsd_rt.serve.log_lines import LogLines
from coolsd_rt.serve.messages import (
    FailedMessage,
    FinalMessage,
    OfOrder,
    PartialMessage,
    ProgressMessage,
    ReadyMessage,
    RefusedMessage,
    StartedMessage,
    pack,
    unpack,
)

MOST_LOST = 5
"""Replicas that an image may lose before it fails."""
_PAUSE = 0.2  # seconds before an image is asked for again
RUNNING = "running"
"""The state of a replica that draws."""


class RayHost:
    """One engine and its replicas. A `Drawer`. handle: of its deployment. most: replicas that there may be."""

    restarts = None

    def __init__(self, engine: ServedEngine, handle: Any, most: int, log: LogLines) -> None:
        self.engine, self._log = engine, log
        self._draw = handle.options(method_name="draw", stream=True)
        self._describe = handle.options(method_name="describe")
        self._most = most
        self.state: State = "loading"
        self.reason = "loading"
        self.samples: list[str] = []
        self.replicas: Mapping[str, int] = {}
        self.retries = 0
        self._draws: dict[int, tuple[Draw, asyncio.Task[None]]] = {}
        self._tickets = itertools.count(1)
        self._was_ready = False
        self._problem = ""
        self._seconds = 1.0  # of an image, a moving average

    @property
    def running(self) -> int:
        """Images in slots."""
        return sum(draw.started for draw, _ in self._draws.values())

    @property
    def waiting(self) -> int:
        """Images that wait for a slot."""
        return len(self._draws) - self.running

    @property
    def room(self) -> int:
        """Images that may be drawn or wait at once, when all replicas run."""
        return self._most * self.engine.slots + self.engine.queue

    @property
    def slots(self) -> int:
        """Images that the replicas draw at once which run now."""
        return self.replicas.get(RUNNING, 0) * self.engine.slots

    def check_room(self, images: int) -> None:
        """Raise NotReady or QueueFull if this number of images cannot be taken now."""
        if self.state != "ready":
            raise NotReady(5 if self.state == "loading" else 2)
        asked = len(self._draws) + images
        if asked > self.slots + self.engine.queue:
            raise QueueFull(max(1, min(3600, math.ceil(asked / self.slots * self._seconds))))

    def draw(self, order: Order) -> Draw:
        """Ask for an image. `check_room` has to come before, without an await between them."""
        draw = Draw(next(self._tickets))
        self._draws[draw.ticket] = draw, asyncio.create_task(self._attend(draw, order))
        return draw

    def cancel(self, draw: Draw) -> None:
        """Draw this image no further. Without effect on a finished one."""
        if (known := self._draws.pop(draw.ticket, None)) is not None:
            known[1].cancel()

    async def look(self, replicas: Mapping[str, int], report: str) -> None:
        """Take what Serve says of the replicas: how many there are in each state, and its report of a failure."""
        before, self.replicas = self.state, {state.lower(): count for state, count in replicas.items()}
        problem = problem_of(report)
        if self.replicas.get(RUNNING, 0):
            self.state, self.reason, self._was_ready = "ready", "", True
            if not self.samples:
                await self._ask_samples()
        else:
            self.state = "restarting" if self._was_ready else "loading"
            self.reason = problem[0] if problem else "no replica runs" if self._was_ready else "loading"
        line = problem[1] if problem else ""
        if line and line != self._problem:
            self._log.error("engine not loaded", model=self.engine.name, problem=line)
        self._problem = line
        if self.state != before:
            self._log.info(f"engine {self.state}", model=self.engine.name, replicas=self.replicas.get(RUNNING, 0))

    async def _ask_samples(self) -> None:
        try:
            message = unpack(await asyncio.wait_for(self._describe.remote(), 5))
        except Exception as error:  # it may be lost meanwhile; the next look asks again
            self._log.error("replica lost", model=self.engine.name, problem=type(error).__name__)
            return
        if isinstance(message, ReadyMessage):
            self.samples = list(message.samples)

    async def _attend(self, draw: Draw, order: Order) -> None:
        """Ask for an image until it is there, or has failed. Cancelled when nobody waits for it any more."""
        lost, told = 0, _Told()
        while True:
            try:
                async for message in self._asked(draw, order):
                    if self._deliver(draw, message, told):
                        return
            except Exception as error:  # Ray's, of actors, nodes and workers, or what the replica raised: it is gone
                lost += 1
                self._log.error("replica lost", model=self.engine.name, problem=type(error).__name__, times=lost)
                if lost > MOST_LOST:
                    self._deliver(draw, FailedMessage(draw.ticket), told)
                    return
                self.retries += 1
            # Else another build answered: an update is under way, and the request's deadline ends this.
            draw.started = False
            await asyncio.sleep(_PAUSE)

    async def _asked(self, draw: Draw, order: Order) -> AsyncIterator[OfOrder]:
        """Yield the messages of one replica; none if it runs another build."""
        answer = self._draw.remote(self.engine.fingerprint, pack(order.message(draw.ticket)))
        try:
            async for data in answer:
                if data == ANOTHER:
                    return
                yield unpack(data)  # type: ignore[misc]  # a replica sends no others
        finally:
            answer.cancel()

    def _deliver(self, draw: Draw, message: OfOrder, told: _Told) -> bool:
        """Hand on a message that is news. Returns whether it is the last."""
        if isinstance(message, StartedMessage):
            draw.started = True
            return False
        if not told.is_new(message):
            return False
        if isinstance(message, FinalMessage):
            spent = message.figures["seconds"] + message.figures["seconds_decode"]
            self._seconds += 0.2 * (spent - self._seconds)
        done = isinstance(message, FinalMessage | RefusedMessage | FailedMessage)
        if done:
            self._draws.pop(draw.ticket, None)
        draw.put(message)
        return done


class _Told:
    """How far a client was told of an image."""

    def __init__(self) -> None:
        self._decided = self._rows = 0

    def is_new(self, message: OfOrder) -> bool:
        """Whether a message tells more than was told; it is told then."""
        if isinstance(message, ProgressMessage):
            new = message.decided > self._decided
            self._decided = max(self._decided, message.decided)
            return new
        if isinstance(message, PartialMessage):
            new = message.rows > self._rows
            self._rows = max(self._rows, message.rows)
            return new
        return True
