"""A server as users start it: a process of its own on a free port of loopback, with a real engine."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

import coolsd_rt

ROOT = Path(coolsd_rt.__file__).parents[1]
PATIENCE = 60.0  # seconds until a test gives up; a machine may be slow at any moment
IMAGES = "/v1/images/generations"
CHATS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


class RunningServer:
    """`coolsd-rt serve`, once it has said its address."""

    words: ClassVar[list[str]] = ["--threads", "1"]
    variables: ClassVar[dict[str, str]] = {}

    def __init__(self, engine: Path, *options: object) -> None:
        words = ["serve", str(engine), "--port", "0", "--json", "--log-format", "json", *self.words]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "coolsd_rt.cli", *words, *map(str, options)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.variables},
            cwd=engine,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.log: list[dict[str, Any]] = []
        threading.Thread(target=self._read_log, daemon=True).start()
        self.document = self._read_document()
        assert "address" in self.document, self.document
        self.url = self.document["address"]
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE)

    def _read_document(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        text = ""
        for line in self.process.stdout:
            text += line
            if line == "}\n":
                document: dict[str, Any] = json.loads(text)
                return document
        raise AssertionError(f"the server ended: {self.process.wait()}, {self.log}")

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except json.JSONDecodeError:
                self.log.append({"level": "error", "event": f"no JSON: {line}"})

    def chat(self, content: str = "red apple", **body: Any) -> httpx.Response:
        return self.http.post(CHATS, json={"messages": [{"role": "user", "content": content}], **body})

    def continue_(self, prompt: Any = "red apple", **body: Any) -> httpx.Response:
        return self.http.post(COMPLETIONS, json={"prompt": prompt, **body})

    def draw(self, **body: Any) -> httpx.Response:
        return self.http.post(IMAGES, json={"prompt": "red apple", **body})

    def events(self, path: str = IMAGES, **body: Any) -> list[dict[str, Any]]:
        """All events of a stream; the last is {} for [DONE]."""
        asked: dict[str, Any] = {"stream": True} | ({} if "messages" in body else {"prompt": "red apple"})
        with self.http.stream("POST", path, json=asked | body) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        return [{} if line == "[DONE]" else json.loads(line) for line in lines]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        families = text_string_to_metric_families(self.http.get("/metrics").text)
        samples = [s for family in families for s in family.samples if s.name == f"coolsd:{name}"]
        assert samples, f"no metric {name}"
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    def busy(self) -> float:
        return self.metric("num_requests_running") + self.metric("num_requests_waiting")

    def wait_for(self, what: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end, "it did not come to pass"
            assert self.process.poll() is None, "the server ended"
            time.sleep(0.02)

    def engine_pids(self) -> list[int]:
        return [line["pid"] for line in self.log if line["event"] == "engine ready"]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end of the process; its exit code."""
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()


@contextmanager
def serving(engine: Path, *options: object) -> Iterator[RunningServer]:
    server = RunningServer(engine, *options)
    try:
        yield server
    finally:
        server.close()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def opened(b64: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(b64)))


def pixels(b64: str) -> bytes:
    return opened(b64).convert("RGB").tobytes()
