"""What the routes need of an engine, wherever it runs: its state, its room, and images and texts that are asked for.

Knows images and texts as messages. Does not know processes or HTTP: `host` keeps an engine's process on this machine.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from coolsd_rt.serve.facts import ServedEngine
from coolsd_rt.serve.messages import (
    DrawMessage,
    GainedMessage,
    OfOrder,
    ProgressMessage,
    Prompt,
    WriteMessage,
)

State = Literal["loading", "ready", "restarting", "stopped"]


class QueueFull(Exception):
    """As many images or texts wait as may. seconds: when to ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.seconds = seconds


class NotReady(Exception):
    """The engine draws nothing now. seconds: when to ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.seconds = seconds


@dataclass(frozen=True)
class ImageOrder:
    """One image to draw. Values as in `DrawMessage`."""

    prompt: str
    options: Mapping[str, Any]
    partial_images: int = 0
    progress: bool = False

    def message(self, ticket: int) -> DrawMessage:
        """Return what an engine's process is sent."""
        return DrawMessage(ticket, self.prompt, self.options, self.partial_images, self.progress)


@dataclass(frozen=True)
class TextOrder:
    """One text to write. Values as in `WriteMessage`."""

    prompt: Prompt
    options: Mapping[str, Any]
    stop: Sequence[str] = ()
    parts: bool = False

    def message(self, ticket: int) -> WriteMessage:
        """Return what an engine's process is sent."""
        return WriteMessage(ticket, self.prompt, self.options, self.stop, self.parts)


Order = ImageOrder | TextOrder


class Draw:
    """An image or a text that waits or is made, and its messages that nobody has taken yet."""

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
        self.asked = time.monotonic()
        self.started = False
        self._messages: deque[OfOrder] = deque()
        self._some = asyncio.Event()

    def put(self, message: OfOrder) -> None:
        """Add a message. Progress and text that nobody has taken become one, so that a slow reader costs no memory."""
        last = self._messages[-1] if self._messages else None
        if isinstance(message, ProgressMessage) and isinstance(last, ProgressMessage):
            both = ([*last.accepted, *message.accepted], [*last.num_drafts, *message.num_drafts])
            self._messages[-1] = replace(message, accepted=both[0], num_drafts=both[1])
        elif isinstance(message, GainedMessage) and isinstance(last, GainedMessage):
            self._messages[-1] = replace(message, text=last.text + message.text)
        else:
            self._messages.append(message)
        self._some.set()

    async def next(self) -> OfOrder:
        """Wait for the next message."""
        while not self._messages:
            self._some.clear()
            await self._some.wait()
        return self._messages.popleft()


class Drawer(Protocol):
    """An engine that images or texts can be asked of."""

    @property
    def engine(self) -> ServedEngine:
        """What is known of it without loading it."""

    @property
    def state(self) -> State:
        """Whether it draws."""

    @property
    def reason(self) -> str:
        """Why it does not."""

    @property
    def samples(self) -> Sequence[str]:
        """Prompts to try it with."""

    @property
    def restarts(self) -> int | None:
        """Starts of its process after the first; None if nobody counts them."""

    @property
    def replicas(self) -> Mapping[str, int]:
        """How many processes run it, by their state; empty outside a cluster."""

    @property
    def retries(self) -> int | None:
        """Images that were asked for again because a replica was lost; None outside a cluster."""

    @property
    def running(self) -> int:
        """Images and texts in slots."""

    @property
    def waiting(self) -> int:
        """Images and texts that wait for a slot."""

    @property
    def room(self) -> int:
        """Images or texts that may be made or wait at once."""

    def check_room(self, images: int) -> None:
        """Raise NotReady or QueueFull if this number of images or texts cannot be taken now."""

    def draw(self, order: Order) -> Draw:
        """Ask for an image or a text. `check_room` has to come before, without an await between them."""

    def cancel(self, draw: Draw) -> None:
        """Go on no further with it. Without effect on a finished one."""
