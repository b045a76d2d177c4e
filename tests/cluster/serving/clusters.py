"""A server on a Ray of its own, as users start it: processes on loopback, with a real engine."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx

from tests.serve.serving import IMAGES, PATIENCE, RunningServer

REPLICA = "ServeReplica:coolsd-rt:engine"


class RayServer(RunningServer):
    """`coolsd-rt serve --ray`, once it has said its address."""

    words: ClassVar[list[str]] = ["--ray"]

    def cluster(self) -> str:
        """The address of its Ray."""
        return next(str(line["address"]) for line in self.log if line["event"] == "ray")

    def replica_pids(self) -> list[int]:
        """Processes that run the engine."""
        own = descendants(self.process.pid)
        return [pid for pid in own if REPLICA in title(pid)]

    def ready_replicas(self) -> float:
        return self.metric("replicas", state="running")


class Joined(RunningServer):
    """`coolsd-rt serve --ray ADDRESS`, on a Ray that runs. The address is among the options."""

    words: ClassVar[list[str]] = []


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """The process's children, theirs, and so on."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            rest = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(rest[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def listening(pids: list[int]) -> set[str]:
    """Addresses on which processes listen, in the kernel's hexadecimal."""
    nodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                nodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
            except OSError:
                continue
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in nodes}


class Load:
    """Clients in threads that ask again and again; what each answer was."""

    def __init__(self, server: RunningServer, clients: int, **body: Any) -> None:
        self._server, self._body = server, {"prompt": "red apple", **body}
        self._going = True
        self.statuses: list[int] = []
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=PATIENCE) as http:
            while self._going:
                try:
                    answer = http.post(IMAGES, json=self._body)
                except httpx.HTTPError as error:
                    self.errors.append(repr(error))
                    continue
                self.statuses.append(answer.status_code)
                if answer.status_code != 200:
                    self.errors.append(answer.text[:300])

    @contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._going = False
            for thread in self._threads:
                thread.join(PATIENCE)

    def more(self, count: int) -> None:
        """Wait for so many answers from now on."""
        wanted, end = len(self.statuses) + count, time.monotonic() + PATIENCE
        while len(self.statuses) < wanted:
            assert time.monotonic() < end, self.errors
            time.sleep(0.02)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
