"""An engine in a thread of its own: rounds block, and the event loop of a replica has to answer meanwhile.

Messages go in through a queue; what comes out is handed to the event loop, to the image that it belongs to.

Knows threads and messages. Does not know Ray or how an image is drawn.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import sys
import threading
import traceback
from dataclasses import replace

from coolsd_rt.errors import CoolsdError
from coolsd_rt.serve.drawer import Draw
from coolsd_rt.serve.messages import (
    CancelMessage,
    DrawMessage,
    FailedMessage,
    FinalMessage,
    FromEngine,
    NoteMessage,
    OfOrder,
    ReadyMessage,
    RefusedMessage,
    Setup,
    StartFailedMessage,
    StopMessage,
    ToEngine,
)


class EngineEnded(RuntimeError):
    """The thread of the engine has ended: a round failed, and the state of all images is not known."""


class EngineThread:
    """A loaded engine. samples: prompts to try it with. `draw` and `cancel` belong to one event loop."""

    def __init__(self, setup: Setup) -> None:
        """Load the engine, and wait for that. Raises CoolsdError as `EngineWork.load` does."""
        self.setup = setup
        self.samples: list[str] = []
        self._inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
        self._tickets = itertools.count(1)
        self._draws: dict[int, Draw] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._loaded = threading.Event()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()
        self._loaded.wait()
        if self._error is not None:
            raise self._error

    @property
    def alive(self) -> bool:
        """Whether it draws."""
        return self._thread.is_alive()

    def draw(self, order: DrawMessage) -> Draw:
        """Ask for an image; its ticket is replaced. Raises EngineEnded."""
        if not self.alive:
            raise EngineEnded
        self._loop = asyncio.get_running_loop()
        draw = Draw(next(self._tickets))
        self._draws[draw.ticket] = draw
        self._inbox.put(replace(order, ticket=draw.ticket))
        return draw

    def cancel(self, draw: Draw) -> None:
        """Draw this image no further. Without effect on a finished one."""
        if self._draws.pop(draw.ticket, None) is not None:
            self._inbox.put(CancelMessage(draw.ticket))

    def stop(self) -> None:
        """End the thread after the round that runs."""
        self._inbox.put(StopMessage())

    def _work(self) -> None:
        from coolsd_rt.serve.engine_work import EngineWork  # imports what draws

        try:
            work = EngineWork.load(self.setup, self._take)
        except BaseException as error:
            self._error = error
            return
        finally:
            self._loaded.set()
        try:
            work.run(self._inbox)
        except BaseException:
            traceback.print_exc()
        finally:
            self._later(self._end)

    def _take(self, message: FromEngine) -> None:
        if isinstance(message, ReadyMessage):
            self.samples = list(message.samples)
        elif isinstance(message, NoteMessage):
            sys.stderr.write(f"{message.text}\n")
        elif not isinstance(message, StartFailedMessage):
            self._later(self._of_image, message)

    def _later(self, call: object, *values: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *values)  # type: ignore[arg-type]

    def _of_image(self, message: OfOrder) -> None:
        if isinstance(message, FinalMessage | RefusedMessage | FailedMessage):
            draw = self._draws.pop(message.ticket, None)
        else:
            draw = self._draws.get(message.ticket)
        if draw is not None:
            draw.put(message)

    def _end(self) -> None:
        """Fail all images."""
        for ticket, draw in list(self._draws.items()):
            draw.put(FailedMessage(ticket))
        self._draws.clear()


def as_line(error: BaseException) -> str:
    """Return an error as one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, CoolsdError) else f"{type(error).__name__}: {text}"
