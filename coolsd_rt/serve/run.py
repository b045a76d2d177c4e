"""Runs the server: checks, the port, the processes of the engines, signals, and the end.

SIGTERM or SIGINT: no new requests are taken, what runs is finished, the exit code is 0. A second signal ends at once.
Knows uvicorn and signals. Does not know routes or how an image is drawn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from coolsd_rt.serve.app import make_app
from coolsd_rt.serve.checks import bind, check_engines, is_loopback, read_key
from coolsd_rt.serve.facts import ServeConfig, ServedEngine
from coolsd_rt.serve.guard import HEADER_BYTES, MOST_CONNECTIONS, Guard
from coolsd_rt.serve.host import EngineHost
from coolsd_rt.serve.log_lines import LogHandler, LogLines
from coolsd_rt.serve.metrics import ServerMetrics
from coolsd_rt.serve.patient_protocol import PatientProtocol
from coolsd_rt.serve.served import Served

_KEEP_ALIVE = 10  # seconds that an idle connection stays open
_LAST_ANSWERS = 30  # seconds that clients may take to read the last answers


@dataclass(frozen=True)
class ServeCallbacks:
    """Who is told what. say: a line of the log. on_ready: the address and its engines, once all of them are ready."""

    say: Callable[[str], None]
    on_ready: Callable[[str, list[ServedEngine]], None]


class QuietServer(uvicorn.Server):
    """uvicorn's server, which leaves signals to us: it would end the process by the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def serve(config: ServeConfig, callbacks: ServeCallbacks) -> None:
    """Serve until a signal ends it.

    Raises UserError, CoolsdError and MissingExtra as the checks do, and if an engine cannot be loaded.
    """
    key = read_key(config.api_key_file)
    engines = check_engines(config)
    sock = bind(config.host, config.port)
    _raise_limit()
    log = LogLines(callbacks.say, config.log_json)
    handler = LogHandler(log)
    loggers = [logging.getLogger(name) for name in ("uvicorn", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        asyncio.run(_Running(config, engines, key, log).run(sock, callbacks.on_ready))
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        sock.close()
        log.close()


def _raise_limit() -> None:
    """Allow as many open files as connections need, if the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * MOST_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class _Running:
    """A server that runs."""

    def __init__(self, config: ServeConfig, engines: list[ServedEngine], key: bytes | None, log: LogLines) -> None:
        self._log, self._engines = log, engines
        self._hosts = {engine.name: EngineHost(engine, log) for engine in engines}
        self._served = Served(self._hosts, ServerMetrics(self._hosts), config.timeout)
        app = Guard(make_app(self._served), key, log, self._connections, is_loopback(config.host))
        options: dict[str, Any] = {
            "http": PatientProtocol,
            "ws": "none",
            "loop": "asyncio",
            "lifespan": "off",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "proxy_headers": False,
            "timeout_keep_alive": _KEEP_ALIVE,
            "timeout_graceful_shutdown": _LAST_ANSWERS,
            "h11_max_incomplete_event_size": HEADER_BYTES,
        }
        self._server = QuietServer(uvicorn.Config(app, **options))
        self._signals = 0
        self._end = asyncio.Event()

    def _connections(self) -> int:
        """Number of open connections."""
        return len(self._server.server_state.connections)

    async def run(self, sock: socket.socket, on_ready: Callable[[str, list[ServedEngine]], None]) -> None:
        """Serve on a socket until a signal. Raises as `EngineHost.run` does."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        host, port = sock.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._log.info("listening", address=address, engines=",".join(self._hosts))
        serving = asyncio.create_task(self._server.serve(sockets=[sock]))
        keeping = [asyncio.create_task(host.run()) for host in self._hosts.values()]
        telling = asyncio.create_task(self._tell_ready(lambda: on_ready(address, self._engines)))
        ending = asyncio.create_task(self._end.wait())
        try:
            await asyncio.wait((serving, ending, *keeping), return_when=asyncio.FIRST_COMPLETED)
            if not any(task.done() and task.exception() for task in keeping):
                await self._drain()
        finally:
            self._served.draining = True
            telling.cancel()
            self._server.should_exit = True
            await serving
            await asyncio.gather(*(host.stop() for host in self._hosts.values()))
            ends = await asyncio.gather(*keeping, return_exceptions=True)
            self._log.info("ended")
        for error in ends:
            if isinstance(error, BaseException):
                raise error

    async def _tell_ready(self, tell: Callable[[], None]) -> None:
        while any(host.state != "ready" for host in self._hosts.values()):
            await asyncio.sleep(0.05)
        tell()

    async def _drain(self) -> None:
        """Finish what runs. The port stays open meanwhile, to say that the server is about to end."""
        self._served.draining = True
        while any(host.running + host.waiting for host in self._hosts.values()):
            await asyncio.sleep(0.05)

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals == 1:
            self._log.info("draining", signal=signal.Signals(number).name)
            self._served.draining = True
            self._end.set()
            return
        for host in self._hosts.values():
            host.kill()
        self._log.info("ended at once", signal=signal.Signals(number).name)
        self._log.close()
        os._exit(128 + number)
