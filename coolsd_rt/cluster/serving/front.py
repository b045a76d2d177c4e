"""The front: the routes of `serve` in a process of the cluster, behind Ray Serve's HTTP proxies.

Knows Ray Serve's status and its hook for an ASGI application. Does not know how an image is drawn.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import serve
from starlette.types import ASGIApp, Receive, Scope, Send

from coolsd_rt.cluster.serving.arguments import ServingArguments, deployment_name
from coolsd_rt.cluster.serving.loopback import stay_on_loopback
from coolsd_rt.cluster.serving.ray_host import RayHost
from coolsd_rt.cluster.serving.replica import not_loaded
from coolsd_rt.errors import CoolsdError
from coolsd_rt.serve.app import make_app
from coolsd_rt.serve.checks import read_key
from coolsd_rt.serve.facts import ServedEngine
from coolsd_rt.serve.guard import Guard
from coolsd_rt.serve.log_lines import LogLines
from coolsd_rt.serve.messages import Setup, unpack
from coolsd_rt.serve.metrics import ServerMetrics
from coolsd_rt.serve.served import Served
from coolsd_rt.workflows.opened import OpenedEngine

_EVERY = 1.0  # seconds between two looks at the replicas
_LINES = 10_000  # of the log that are kept for who reads it


class Front:
    """The server's routes. Ray Serve makes it an ASGI application by `__serve_build_asgi_app__`.

    arguments: `ServingArguments`. setups: `Setup` of each engine, as bytes. handles: of the engines' deployments.
    """

    def __init__(self, arguments: dict[str, Any], setups: Sequence[bytes], *handles: Any) -> None:
        """Read the engines' manifests and the key's file on this node. Raises EngineNotLoaded."""
        stay_on_loopback()
        try:
            self._open(ServingArguments.of(arguments), setups, handles)
        except CoolsdError as error:
            raise not_loaded("the node of the front does not have it", error) from None

    def _open(self, given: ServingArguments, setups: Sequence[bytes], handles: Sequence[Any]) -> None:
        self._name = uuid.uuid4().hex
        self._lines: deque[tuple[int, str]] = deque(maxlen=_LINES)
        self._numbers = itertools.count(1)
        self._log = log = LogLines(self._say, given.log_json)
        key = read_key(Path(given.api_key_file) if given.api_key_file else None)
        served = [_served(given, setup) for setup in setups]
        self._hosts = {
            engine.name: RayHost(engine, handle, given.most, log)
            for engine, handle in zip(served, handles, strict=True)
        }
        self._calls = 0
        self._served = Served(self._hosts, ServerMetrics(self._hosts), given.timeout)
        self._app = Guard(self._counted(make_app(self._served)), key, log, lambda: self._calls, given.local)
        self._watching: asyncio.Task[None] | None = None

    async def __serve_build_asgi_app__(self) -> ASGIApp:  # Ray's name
        self._watching = asyncio.create_task(self._watch())
        return self._app

    async def tell(self, heard: dict[str, int], drain: bool = False) -> str:
        """Return the engines' states, the number of images and of calls under way, and the log's new lines, as JSON.

        heard: by the name of a front, the number of its last line that the caller has. Lines are kept after they are
        told: an answer may be lost, and two commands may ask. drain: take no new requests from now on.
        """
        if drain:
            self._served.draining = True
        known = heard.get(self._name, 0)
        lines = [(number, line) for number, line in self._lines.copy() if number > known]
        engines = [
            {"name": name, "state": host.state, "reason": host.reason, "replicas": dict(host.replicas)}
            for name, host in self._hosts.items()
        ]
        images = sum(host.running + host.waiting for host in self._hosts.values())
        told = {"front": self._name, "engines": engines, "images": images, "calls": self._calls, "lines": lines}
        return json.dumps(told)

    def _say(self, line: str) -> None:
        self._lines.append((next(self._numbers), line))
        sys.stderr.write(f"{line}\n")  # a file of Ray's

    def _counted(self, app: ASGIApp) -> ASGIApp:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            with self._counting():
                await app(scope, receive, send)

        return call

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    async def _watch(self) -> None:
        """Look at the replicas again and again."""
        name = serve.get_replica_context().app_name
        while True:
            try:
                await self._look(name)
            except Exception as error:  # the controller may be starting again; the replicas go on meanwhile
                self._log.error("no status from Ray Serve", problem=type(error).__name__)
            await asyncio.sleep(_EVERY)

    async def _look(self, name: str) -> None:
        status = await asyncio.to_thread(serve.status)
        app = status.applications.get(name)
        deployments: Mapping[str, Any] = app.deployments if app is not None else {}
        for engine, host in self._hosts.items():
            if (found := deployments.get(deployment_name(engine))) is not None:
                await host.look(found.replica_states, found.message)


def _served(given: ServingArguments, setup: bytes) -> ServedEngine:
    """Return what is known of an engine. Raises CoolsdError if this node has another build of it."""
    read = unpack(setup)
    assert isinstance(read, Setup)
    engine = ServedEngine(OpenedEngine.at(Path(read.folder), None, read.threads), read.slots, given.queue)
    if replace(engine.setup, threads=read.threads, folder=read.folder) != read:
        expected = f"the engine {read.fingerprint} on the node of the front"
        raise CoolsdError(read.folder, expected=expected, found="another", fix="copy the engine to every node")
    return engine
