"""What one request asked of an engine: images or texts, a deadline, and how it ended.

Whatever ends the request (an answer, an error, a deadline, a client that left) frees the slots of what it asked for.
Knows engines' hosts. Does not know HTTP, or how an answer looks (`image_commission`, `text_commission`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence

from coolsd_rt.serve import api_errors
from coolsd_rt.serve.api_errors import ApiError, invalid
from coolsd_rt.serve.drawer import Draw, Drawer, NotReady, Order, QueueFull
from coolsd_rt.serve.messages import LAST, FailedMessage, Lost, OfOrder, RefusedMessage
from coolsd_rt.serve.metrics import Reason, ServerMetrics

FIRST_WAIT = 1.0  # seconds in which an engine has refused what it refuses
QUIET = 15.0  # seconds without an event after which a stream shows that it lives


class Commission:
    """The images or texts of one request. seconds: until its deadline."""

    def __init__(self, host: Drawer, metrics: ServerMetrics, seconds: float) -> None:
        self._host, self._metrics = host, metrics
        self._seconds = seconds
        self._began, self._created = time.monotonic(), int(time.time())
        self._draws: list[Draw] = []
        self._reading: dict[int, asyncio.Task[OfOrder]] = {}
        self._done: set[int] = set()  # draws whose last message was taken
        self._seen = self._closed = False

    def ask(self, orders: Sequence[Order], field: str) -> None:
        """Take their places in the queue, all or none. field: what says how many there are. Raises ApiError."""
        host = self._host
        if len(orders) > host.room:
            raise invalid(field, f"at most {host.room}, the room of this server", str(len(orders)))
        try:
            host.check_room(len(orders))
            for order in orders:
                self._draws.append(host.draw(order))
        except QueueFull as full:
            raise api_errors.queue_full(full.seconds) from None
        except NotReady as soon:
            raise api_errors.unavailable(_why(host), "engine_not_ready", soon.seconds) from None

    async def first(self) -> tuple[int, OfOrder] | None:
        """Wait a moment for the first message of a stream. Raises ApiError if the engine refuses the request."""
        with self.counted(at_end=False):
            return await self._message(min(FIRST_WAIT, self._left))

    async def next(self) -> tuple[int, OfOrder] | None:
        """Wait for a message and the index of its draw, but not for long; None if there is none.

        Raises ApiError when the time is over, or if something is lost.
        """
        if (left := self._left) <= 0:
            raise api_errors.deadline(self._seconds)
        return await self._message(min(QUIET, left))

    async def _message(self, seconds: float) -> tuple[int, OfOrder] | None:
        for index, draw in enumerate(self._draws):
            if index not in self._reading and index not in self._done:
                self._reading[index] = asyncio.create_task(draw.next())
        # Not around the whole stream: a timeout must not strike while its reader is written to.
        there, _ = await asyncio.wait(
            self._reading.values(), timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED
        )
        for index, task in self._reading.items():
            if task in there:
                del self._reading[index]
                message = task.result()
                if isinstance(message, LAST):
                    self._done.add(index)
                if isinstance(message, RefusedMessage | FailedMessage):
                    raise self._lost(message)
                return index, message
        return None

    async def last(self, draw: Draw) -> OfOrder:
        """Wait for the last message of a draw. Raises ApiError if it is lost."""
        while not isinstance(message := await draw.next(), LAST):
            pass
        if isinstance(message, RefusedMessage | FailedMessage):
            raise self._lost(message)
        return message

    def _lost(self, message: Lost) -> ApiError:
        return api_errors.refused(message) if isinstance(message, RefusedMessage) else api_errors.engine_failed()

    @property
    def _left(self) -> float:
        return self._seconds - (time.monotonic() - self._began)

    def see(self) -> None:
        """Note that there is something to be seen, if it is the first time."""
        if not self._seen:
            self._seen = True
            self._metrics.first(self._host.engine.name, time.monotonic() - self._began)

    @contextlib.asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Turn the end of the request's time into an error."""
        try:
            async with asyncio.timeout(self._left):
                yield
        except TimeoutError:
            raise api_errors.deadline(self._seconds) from None

    @contextlib.contextmanager
    def counted(self, *, at_end: bool = True) -> Iterator[None]:
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
        for task in self._reading.values():
            task.cancel()
        for draw in self._draws:
            self._host.cancel(draw)
        self._metrics.request(self._host.engine.name, reason, time.monotonic() - self._began)


def check_seconds(asked: float | None, most: float) -> float:
    """Return the seconds until a request's deadline. Raises ApiError if it asks for more than the server allows."""
    if asked is not None and asked > most:
        raise invalid("timeout", f"at most the server's {most:g} seconds", f"{asked:g}")
    return asked or most


def _why(host: Drawer) -> str:
    if host.state == "loading":
        return f"the engine {host.engine.name} is loading"
    return f"the engine {host.engine.name} starts again: {host.reason}"
