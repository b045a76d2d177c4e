"""A replica: one process of the cluster that runs one engine, and streams messages of each image to who asked for it.

Knows Ray Serve's callbacks of a replica. Does not know HTTP or how many replicas there are.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import ray

from coolsd_rt.cluster.serving.engine_thread import EngineEnded, EngineThread, as_line
from coolsd_rt.cluster.serving.loopback import stay_on_loopback
from coolsd_rt.errors import UserError
from coolsd_rt.serve.messages import (
    DrawMessage,
    FailedMessage,
    FinalMessage,
    ReadyMessage,
    RefusedMessage,
    Setup,
    pack,
    unpack,
)

ANOTHER = b""
"""What a replica yields, and nothing else, that runs another build of the engine than was asked for."""

_LAST_WORDS = 1.0  # seconds in which a replica whose engine has ended tells its callers so
_PROBLEM = re.compile(r"\[engine not loaded: ([^\[\]]*)\] \[(.*?)\] \[end\]")


class EngineNotLoaded(RuntimeError):
    """An engine cannot be loaded on a node. Its text passes through Ray's own report of the failure."""

    def __init__(self, reason: str, line: str) -> None:
        super().__init__(f"[engine not loaded: {reason}] [{line}] [end]")


def problem_of(report: str) -> tuple[str, str] | None:
    """Return why an engine was not loaded, of Ray's report: for clients, and a line for the log. None: another failure.

    The reason names no path.
    """
    found = _PROBLEM.search(" ".join(report.split()))
    return (found[1], found[2]) if found else None


def not_loaded(reason: str, error: Exception) -> EngineNotLoaded:
    """Return the error of this node. reason: for clients."""
    node = ray.util.get_node_ip_address()
    return EngineNotLoaded(reason, f"node {node}: {as_line(error)}".replace("[", "(").replace("]", ")"))


class EngineReplica:
    """One engine. setup: `Setup`, as bytes."""

    def __init__(self, setup: bytes) -> None:
        """Load the engine. Raises EngineNotLoaded."""
        stay_on_loopback()
        read = unpack(setup)
        assert isinstance(read, Setup)
        self._setup = read
        try:
            self._engine = EngineThread(read)
        except Exception as error:
            raise not_loaded(_reason(read, error), error) from None

    async def draw(self, fingerprint: str, order: bytes) -> AsyncIterator[bytes]:
        """Yield the messages of an image; `ANOTHER` if the engine is another build. Raises EngineEnded."""
        if fingerprint != self._setup.fingerprint:
            yield ANOTHER
            return
        asked = unpack(order)
        assert isinstance(asked, DrawMessage)
        draw = self._engine.draw(asked)
        try:
            while True:
                message = await draw.next()
                if isinstance(message, FailedMessage) and not self._engine.alive:
                    self._leave()
                    raise EngineEnded
                yield pack(message)
                if isinstance(message, FinalMessage | RefusedMessage | FailedMessage):
                    return
        finally:
            self._engine.cancel(draw)

    async def describe(self) -> bytes:
        """Return `ReadyMessage` as bytes."""
        return pack(ReadyMessage(self._engine.samples))

    def check_health(self) -> None:
        """Raise EngineEnded if the engine draws no more; Serve then replaces the replica."""
        if not self._engine.alive:
            self._leave()
            raise EngineEnded

    def __del__(self) -> None:
        if (engine := getattr(self, "_engine", None)) is not None:
            engine.stop()

    @staticmethod
    def _leave() -> None:
        """End the process soon: of all replicas one without an engine has the shortest queue, and is asked first."""
        threading.Timer(_LAST_WORDS, os._exit, (1,)).start()


def _reason(setup: Setup, error: Exception) -> str:
    try:
        there = Path(setup.folder).is_dir()
    except OSError:
        there = False
    if not there:
        return "a node does not have its folder"
    if isinstance(error, UserError) or "as it was when the server started" in str(error):
        return "a node has another build of it"
    return "it cannot be loaded on a node"
