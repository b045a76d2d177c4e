"""A server to put load on: `coolsd-rt serve` as a process of its own on a free port of loopback.

Knows processes, their memory and what `/metrics` says. Does not know clients.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from coolsd_rt.errors import CoolsdError

PATIENCE = 120.0  # seconds to start, to become idle, and to end


class LoadedServer:
    """A server that runs. url: its address."""

    def __init__(self, engine: Path, options: Sequence[str], log: Path) -> None:
        self._log = log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "coolsd_rt.cli", "serve", str(engine), "--port", "0", "--json", *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.url = self._address()

    def _address(self) -> str:
        assert self.process.stdout is not None  # it is a pipe
        text = ""
        for line in self.process.stdout:
            text += line
            if line == "}\n" and "address" in (document := json.loads(text)):
                return str(document["address"])
        raise CoolsdError("the server", expected="an address on its output", found=f"its end, {self.process.wait()}")

    def processes(self) -> dict[str, int]:
        """Return the process ids: `http`, and `engine` while there is one."""
        pid = self.process.pid
        found = {"http": pid}
        for child in children(pid):
            if b"engine_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                found["engine"] = child
        return found

    def memory(self) -> dict[str, int]:
        """Return the resident bytes of each process."""
        page = os.sysconf("SC_PAGE_SIZE")
        return {
            name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
            for name, pid in self.processes().items()
        }

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        text = httpx.get(f"{self.url}/metrics", timeout=PATIENCE).text
        lines = [line for line in text.splitlines() if line.startswith((f"coolsd:{name}{{", f"coolsd:{name} "))]
        if not lines:
            raise CoolsdError("/metrics", expected=f"a metric coolsd:{name}", found="none of that name")
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def idle(self) -> bool:
        """Whether no image runs or waits."""
        return not self.metric("num_requests_running") + self.metric("num_requests_waiting")

    def seconds_until(self, path: str) -> float:
        """Wait until a path answers 200. Returns the seconds that it took."""
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            try:
                if httpx.get(f"{self.url}{path}", timeout=5.0).status_code == 200:
                    return time.monotonic() - began
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise CoolsdError(path, expected="200", found=f"none within {PATIENCE:g} s")

    def close(self) -> int:
        """End it; return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self._log.close()


@contextmanager
def served(engine: Path, options: Sequence[str], log: Path) -> Iterator[LoadedServer]:
    """Serve an engine; end the server afterwards. log: file for its log."""
    server = LoadedServer(engine, options, log)
    try:
        yield server
    finally:
        server.close()


def children(pid: int) -> list[int]:
    """Return the children of a process, of any of its threads; those of a thread that ends meanwhile are left out."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found
