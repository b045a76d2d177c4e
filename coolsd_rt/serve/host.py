"""Keeps an engine's process running and hands its images and texts to those who wait for them.

States: `loading` until the engine is ready for the first time, `ready`, `restarting` after its process has ended, and
`stopped`. Requests are taken while it is ready. When the process ends, every image and text of it fails at once and the
process is started again: at once, then after 1, 2, 4 ... 30 seconds.

Knows processes and what is asked of them. Does not know HTTP.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from typing import ClassVar

from coolsd_rt.errors import CoolsdError, rebuilt
from coolsd_rt.serve.drawer import Draw, NotReady, Order, QueueFull, State
from coolsd_rt.serve.facts import ServedEngine
from coolsd_rt.serve.log_lines import LogLines
from coolsd_rt.serve.messages import (
    LAST,
    CancelMessage,
    FailedMessage,
    FinalMessage,
    FromEngine,
    NoteMessage,
    OfOrder,
    ReadyMessage,
    StartedMessage,
    StartFailedMessage,
    StopMessage,
    WrittenMessage,
)
from coolsd_rt.serve.process_handle import Hears, ProcessHandle

LONGEST_PAUSE = 30.0  # seconds between two starts of a process
LASTED = 60.0  # seconds after which an engine that was ready is thought well: the pauses begin anew
STOPPING = 5.0  # seconds that a process has to end


class EngineHost:
    """One engine: its process, its state, its images. A `Drawer`."""

    replicas: ClassVar[dict[str, int]] = {}
    retries = None

    def __init__(self, engine: ServedEngine, log: LogLines) -> None:
        self.engine, self._log = engine, log
        self.state: State = "loading"
        self.reason = "loading"
        self.samples: list[str] = []
        self.restarts = 0
        self._draws: dict[int, Draw] = {}
        self._tickets = itertools.count(1)
        self._handle: ProcessHandle | None = None
        self._ended = asyncio.Event()
        self._start_error: StartFailedMessage | None = None
        self._was_ready = self._stopping = False
        self._seconds = 1.0  # of an image or a text, a moving average

    @property
    def running(self) -> int:
        """Images and texts in slots."""
        return sum(draw.started for draw in self._draws.values())

    @property
    def waiting(self) -> int:
        """Images and texts that wait for a slot."""
        return len(self._draws) - self.running

    @property
    def pid(self) -> int | None:
        """The number of its process."""
        return self._handle.pid if self._handle is not None else None

    @property
    def room(self) -> int:
        """Images or texts that may be made or wait at once."""
        return self.engine.most

    def check_room(self, images: int) -> None:
        """Raise NotReady or QueueFull if this number of images or texts cannot be taken now."""
        if self.state != "ready":
            raise NotReady(5 if self.state == "loading" else 2)
        if len(self._draws) + images > self.room:
            rounds = (len(self._draws) + images) / self.engine.slots
            raise QueueFull(max(1, min(3600, math.ceil(rounds * self._seconds))))

    def draw(self, order: Order) -> Draw:
        """Ask for an image or a text. `check_room` has to come before, without an await between them."""
        if self._handle is None:
            raise NotReady(2)
        draw = Draw(next(self._tickets))
        self._draws[draw.ticket] = draw
        self._handle.send(order.message(draw.ticket))
        return draw

    def cancel(self, draw: Draw) -> None:
        """Go on no further with it. Without effect on a finished one."""
        if self._draws.pop(draw.ticket, None) is not None and self._handle is not None:
            self._handle.send(CancelMessage(draw.ticket))

    async def run(self) -> None:
        """Keep the process running until `stop`.

        Raises CoolsdError or UserError if the engine cannot be loaded the first time.
        """
        failures = 0
        began = time.monotonic()
        while await self._run_once():
            if self._start_error is not None and not self._was_ready:
                raise _as_error(self._start_error)
            failures = 1 if self._was_ready and time.monotonic() - began > LASTED else failures + 1
            pause = 0.0 if failures == 1 else min(LONGEST_PAUSE, 2.0 ** (failures - 2))
            self._log.error("engine ended", model=self.engine.name, reason=self.reason, restart_in_seconds=pause)
            self.restarts += 1
            await asyncio.sleep(pause)
            began = time.monotonic()

    async def _run_once(self) -> bool:
        """Start the process and wait for its end. Returns whether it should not have ended."""
        if not self._going():
            return False
        self._ended, self._start_error = asyncio.Event(), None
        hears = Hears(self._message, self._line, self._end)
        try:
            self._handle = await asyncio.to_thread(ProcessHandle, self.engine.setup, asyncio.get_running_loop(), hears)
        except OSError as error:
            self._log.failure(f"engine {self.engine.name} was not started", error)
            self._lose("its process cannot be started")
            return self._going()
        if not self._going():
            self._handle.send(StopMessage())
        await self._ended.wait()
        self._handle = None
        return self._going()

    def _going(self) -> bool:
        return not self._stopping

    async def stop(self) -> None:
        """End the process; kill it if it takes too long."""
        self._stopping = True
        self.state, self.reason = "stopped", "the server ends"
        if (handle := self._handle) is None:
            return
        handle.send(StopMessage())
        try:
            if not self._was_ready:  # it loads, and reads no messages
                handle.kill()
            await asyncio.wait_for(self._ended.wait(), STOPPING)
        except TimeoutError:
            handle.kill()

    def kill(self) -> None:
        """End the process at once."""
        if self._handle is not None:
            self._handle.kill()

    def _message(self, message: FromEngine) -> None:
        if isinstance(message, NoteMessage):
            self._log.info(message.text, model=self.engine.name)
            if self.state == "loading":
                self.reason = message.text
        elif isinstance(message, ReadyMessage):
            self.samples, self._was_ready = list(message.samples), True
            if not self._stopping:
                self.state, self.reason = "ready", ""
            self._log.info("engine ready", model=self.engine.name, engine=self.engine.fingerprint, pid=self.pid)
        elif isinstance(message, StartFailedMessage):
            self._start_error = message
            self._log.error("engine not loaded", model=self.engine.name, problem=str(_as_error(message)))
        elif (draw := self._draws.get(message.ticket)) is not None:
            self._of_order(draw, message)

    def _of_order(self, draw: Draw, message: OfOrder) -> None:
        if isinstance(message, StartedMessage):
            draw.started = True
            return
        if isinstance(message, FinalMessage | WrittenMessage):
            spent = message.figures["seconds"] + message.figures.get("seconds_decode", 0.0)
            self._seconds += 0.2 * (spent - self._seconds)
        if isinstance(message, LAST):
            del self._draws[draw.ticket]
        draw.put(message)

    def _line(self, line: str) -> None:
        self._log.error(line, model=self.engine.name)

    def _end(self, code: int) -> None:
        changed = self._start_error is not None and self._was_ready
        self._lose("its folder was changed or removed" if changed else f"its process ended with code {code}")
        self._ended.set()

    def _lose(self, reason: str) -> None:
        """Fail all images and texts."""
        if not self._stopping:
            self.state, self.reason = "restarting" if self._was_ready else "loading", reason
        for ticket, draw in list(self._draws.items()):
            draw.put(FailedMessage(ticket))
        self._draws.clear()


def _as_error(message: StartFailedMessage) -> CoolsdError:
    return rebuilt(message.what, message.expected, message.found, message.fix, message.exit_code)
