"""The HTTP process's end of an engine's process: threads that write, read and wait, so that the event loop never does.

Knows how a process is started and what comes of it. Does not know requests or when a process should be started.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from coolsd_rt.serve.engine_process import COMMAND
from coolsd_rt.serve.messages import FromEngine, Message, Setup, ToEngine, receive, send

_ENDING = 2.0  # seconds that a process without a socket may take to end


@dataclass(frozen=True)
class Hears:
    """Who is told what, always in the event loop: each message, each line of its stderr, and its end."""

    message: Callable[[FromEngine], None]
    line: Callable[[str], None]
    end: Callable[[int], None]


class ProcessHandle:
    """A running process of an engine."""

    def __init__(self, setup: Setup, loop: asyncio.AbstractEventLoop, hears: Hears) -> None:
        """Start the process. Raises OSError if the operating system refuses."""
        self._loop, self._hears = loop, hears
        self._outbox: queue.SimpleQueue[ToEngine | None] = queue.SimpleQueue()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, str(theirs.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in a terminal is the HTTP process's alone
            )
        self._connection = Connection(ours.detach())
        self.send(setup)
        for work in (self._write, self._read, self._listen):
            threading.Thread(target=work, name=f"engine-{work.__name__.strip('_')}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def send(self, message: ToEngine) -> None:
        """Send a message, by and by. Without effect once the process has ended."""
        self._outbox.put(message)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while (message := self._outbox.get()) is not None:
                send(self._connection, message)

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._tell(self._hears.message, receive(self._connection))
        try:
            code = self._process.wait(timeout=_ENDING)  # it closed the socket: it is about to end
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._outbox.put(None)
        self._tell(self._hears.end, code)

    def _listen(self) -> None:
        stream = self._process.stderr
        if stream is None:
            return
        with stream:
            for line in stream:
                self._tell(self._hears.line, line.decode("utf-8", "replace").rstrip())

    def _tell(self, hears: Callable[..., None], value: Message | str | int) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(hears, value)
