"""A server under trouble: a full queue, deadlines, clients that leave, a killed engine, signals, changed files."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from coolsd_rt.serve import body
from coolsd_rt.serve.patient_protocol import HEADER_SECONDS
from coolsd_rt.store import EngineFolder
from tests.serve.conftest import Start
from tests.serve.serving import IMAGES, PATIENCE, RunningServer, alive

BODY = {"prompt": "red apple", "n": 10}
MANY = 40  # requests: enough that some wait whatever the machine does


@contextmanager
def flood(server: RunningServer, requests: int = MANY, **more: Any) -> Iterator[list[Future[httpx.Response]]]:
    """Requests for ten images each, of clients in threads; all are sent, and some wait."""
    with ThreadPoolExecutor(requests) as pool:
        begun = threading.Barrier(requests + 1)

        def ask() -> httpx.Response:
            begun.wait(PATIENCE)
            return httpx.post(f"{server.url}{IMAGES}", json={**BODY, **more}, timeout=PATIENCE)

        answers = [pool.submit(ask) for _ in range(requests)]
        begun.wait(PATIENCE)
        server.wait_for(lambda: server.metric("num_requests_waiting") > 0)
        yield answers


@contextmanager
def stopped(server: RunningServer) -> Iterator[None]:
    """The engine's process does nothing meanwhile, so that nothing is finished."""
    (engine,) = server.engine_pids()
    os.kill(engine, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine, signal.SIGCONT)


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def test_a_full_queue_is_a_429_that_says_when_to_come_again(start: Start) -> None:
    server = start("--slots", 1, "--queue", 15)
    with flood(server) as answers:
        pass
    statuses = [answer.result().status_code for answer in answers]
    assert set(statuses) == {200, 429}
    full = next(answer.result() for answer in answers if answer.result().status_code == 429)
    assert code(full) == "queue_full"
    assert 1 <= int(full.headers["retry-after"]) <= 3600
    assert server.busy() == 0
    assert server.draw(n=10).status_code == 200


def test_more_images_than_there_is_room_for_ever(start: Start) -> None:
    server = start("--slots", 1, "--queue", 2)
    assert server.draw(n=3).status_code == 200
    answer = server.draw(n=4)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")


def test_a_deadline_is_a_504_and_frees_the_slots(start: Start) -> None:
    server = start("--slots", 1, "--timeout", 30)
    with stopped(server):
        answer = server.draw(n=10, timeout=0.3)
        assert (answer.status_code, code(answer)) == (504, "deadline_exceeded")
        late = server.events(timeout=1.5)  # longer than a stream waits before it begins
        assert [event.get("error", {}).get("code") for event in late] == ["deadline_exceeded", None]
        assert server.metric("request_success_total", finished_reason="timeout") == 2
        assert server.busy() == 0
    assert server.draw().status_code == 200
    assert server.metric("images_total") == 1
    assert server.draw(timeout=31).json()["error"]["param"] == "timeout"


def test_a_client_that_leaves_frees_its_slot(start: Start) -> None:
    """Plain answers as well as streams, those that wait as well as those that are drawn."""
    server = start("--slots", 1, "--queue", 1000)

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
            bodies = [BODY, {"prompt": "red apple", "stream": True, "partial_images": 3}]
            tasks = [asyncio.create_task(http.post(IMAGES, json=body)) for body in bodies * 5]
            while server.busy() < 55:
                await asyncio.sleep(0.01)
            await asyncio.sleep(1.5)  # streams have begun
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    with stopped(server):
        asyncio.run(leave())
        server.wait_for(lambda: server.busy() == 0)
        assert server.metric("request_success_total", finished_reason="abort") == 10
    assert server.draw().status_code == 200
    assert server.metric("images_total") == 1
    assert server.metric("request_success_total", finished_reason="error") == 0


def test_an_engine_that_is_killed_fails_its_requests_and_comes_back(start: Start) -> None:
    server = start("--slots", 2, "--queue", 1000)
    (first,) = server.engine_pids()
    wanted = server.draw(seed=5).json()["data"]
    with flood(server) as answers:
        os.kill(first, signal.SIGKILL)
    ends = [answer.result() for answer in answers]
    lost = [end for end in ends if end.status_code != 200]
    assert lost
    assert {(end.status_code, code(end)) for end in lost} <= {(500, "engine_failed"), (503, "engine_not_ready")}
    assert all("retry-after" in end.headers for end in lost if end.status_code == 503)
    server.wait_for(lambda: server.http.get("/ready").status_code == 200)
    assert server.draw(seed=5).json()["data"] == wanted
    assert len(server.engine_pids()) == 2
    assert server.metric("engine_restarts") == 1
    assert server.busy() == 0


def test_a_stream_of_a_killed_engine_ends_with_an_error(start: Start) -> None:
    server = start("--slots", 1, "--queue", 1000)
    (engine,) = server.engine_pids()
    os.kill(engine, signal.SIGSTOP)  # nothing is drawn from here on
    with ThreadPoolExecutor(1) as pool:
        events = pool.submit(server.events)
        server.wait_for(lambda: server.busy() == 1)
        time.sleep(1.5)  # longer than a stream waits before it begins
        os.kill(engine, signal.SIGKILL)
        told = events.result()
    assert [event.get("error", {}).get("code") for event in told] == ["engine_failed", None]
    assert told[-1] == {}


def test_sigterm_finishes_what_runs(start: Start) -> None:
    server = start("--slots", 1, "--queue", 1000)
    with ThreadPoolExecutor(1) as pool:
        with stopped(server), flood(server, 5) as answers:
            events = pool.submit(server.events, partial_images=2, progress=True)
            server.wait_for(lambda: server.busy() == 51)
            server.signal(signal.SIGTERM)
            server.wait_for(lambda: server.http.get("/ready").status_code == 503)
            late = server.draw()
            os.kill(server.engine_pids()[0], signal.SIGCONT)
        told = events.result()
    assert (late.status_code, code(late)) == (503, "draining")
    assert [answer.result().status_code for answer in answers] == [200] * 5
    assert all(len(answer.result().json()["data"]) == 10 for answer in answers)
    assert told[-2]["type"] == "image_generation.completed"
    assert server.ended() == 0
    assert not [pid for pid in server.engine_pids() if alive(pid)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(start: Start, number: signal.Signals) -> None:
    server = start("--slots", 1, "--queue", 1000)
    (engine,) = server.engine_pids()
    os.kill(engine, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(httpx.post, f"{server.url}{IMAGES}", json=BODY, timeout=PATIENCE)
        server.wait_for(lambda: server.busy() == 10)
        server.signal(number)
        server.wait_for(lambda: server.http.get("/ready").status_code == 503)
        server.signal(number)
        assert server.ended() == 128 + number
        with pytest.raises(httpx.TransportError):
            lost.result()
    end = time.monotonic() + PATIENCE
    while alive(engine) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(engine)


def test_an_idle_server_ends_with_ctrl_c(start: Start) -> None:
    server = start()
    server.signal(signal.SIGINT)
    assert server.ended() == 0


def test_engines_end_with_a_server_that_was_killed(start: Start) -> None:
    server = start()
    (engine,) = server.engine_pids()
    server.signal(signal.SIGKILL)
    server.ended()
    end = time.monotonic() + PATIENCE
    while alive(engine) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(engine)


def test_an_engine_folder_that_changes_while_it_is_served(
    start: Start, tiny_engine: EngineFolder, tmp_path: Path
) -> None:
    folder = tmp_path / tiny_engine.manifest.fingerprint
    shutil.copytree(tiny_engine.folder, folder)
    server = start(engine=folder)
    (graph,) = folder.glob("target.onnx")
    data = graph.read_bytes()
    graph.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert server.draw(stream=None, plain=True).status_code == 200  # it keeps what it has loaded
    os.kill(server.engine_pids()[0], signal.SIGKILL)
    server.wait_for(lambda: "changed" in server.http.get("/ready").json()["engines"][0]["reason"])
    ready = server.http.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["engines"][0]["state"] == "restarting"
    answer = server.draw()
    assert (answer.status_code, code(answer)) == (503, "engine_not_ready")
    assert "changed or removed" in answer.json()["error"]["message"]
    assert str(tmp_path) not in ready.text + answer.text
    graph.write_bytes(data)
    server.wait_for(lambda: server.http.get("/ready").status_code == 200)
    assert server.draw().status_code == 200


def talk(server: RunningServer, data: bytes) -> bytes:
    """What comes until the server ends the connection."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as sock:
        sock.sendall(data)
        got = b""
        try:
            while part := sock.recv(65536):
                got += part
        except ConnectionResetError:
            pass
        return got


def test_slow_senders_do_not_stay(server: RunningServer) -> None:
    """At once, since each takes as long as the server is patient."""
    head = f"POST {IMAGES} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n".encode()
    keep = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    sent = {
        "nothing": b"",
        "half a line": b"GET /heal",
        "half the headers": head,
        "half a body": head + b'content-length: 100\r\n\r\n{"prompt',
        "half a second request": keep + b"GET /he",
    }
    began = time.monotonic()
    with ThreadPoolExecutor(len(sent)) as pool:
        got = dict(zip(sent, pool.map(lambda data: talk(server, data), sent.values()), strict=True))
    assert time.monotonic() - began >= min(HEADER_SECONDS, body.BODY_SECONDS) - 1
    assert (got["nothing"], got["half a line"], got["half the headers"]) == (b"", b"", b"")
    assert got["half a body"].startswith(b"HTTP/1.1 408 ")
    assert got["half a second request"].startswith(b"HTTP/1.1 200 ")


def test_a_slow_reader_does_not_stall_others(start: Start) -> None:
    server = start("--slots", 2)
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    text = b'{"prompt": "red", "stream": true, "partial_images": 3, "progress": true}'
    head = f"POST {IMAGES} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(text)}\r\n\r\n"
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        slow.connect((host, int(port)))
        slow.sendall(head.encode() + text)
        for _ in range(3):
            assert server.draw(n=4).status_code == 200
        server.wait_for(lambda: server.busy() == 0)
