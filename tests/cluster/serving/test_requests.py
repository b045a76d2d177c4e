"""A server on two replicas answers as one on this machine does, and loses no request with a replica.

In the order in which they stand: the last tests end what the others use.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from coolsd_rt import Pipeline
from tests.cluster.serving.clusters import Joined, Load, RayServer, descendants, kill, listening
from tests.serve.serving import IMAGES, PATIENCE, alive, pixels

ANY = {"00000000", "00000000000000000000000000000000"}


def test_ray_listens_on_loopback_only(server: RayServer) -> None:
    addresses = listening(descendants(server.process.pid))
    assert addresses
    assert not addresses & ANY
    assert all("0100007F" in address for address in addresses)


@pytest.mark.parametrize("options", [{"plain": True}, {"pacing": "manual"}])
def test_the_images_are_those_of_the_pipeline(server: RayServer, pipe: Pipeline, options: dict[str, Any]) -> None:
    """Of eight images drawn by two replicas."""
    answer = server.draw(n=8, seed=7, **options)
    assert answer.status_code == 200
    data = answer.json()["data"]
    wanted = pipe("red apple", seed=7, images_per_prompt=8, **options)
    assert [pixels(one["b64_json"]) for one in data] == [image.tobytes() for image in wanted.images]


def test_a_stream_tells_of_rounds_and_rows_and_then_of_the_image(server: RayServer, pipe: Pipeline) -> None:
    events = server.events(seed=3, plain=True, partial_images=3, progress=True)
    kinds = [event.get("type", "done").removeprefix("image_generation.") for event in events]
    assert kinds[-2:] == ["completed", "done"]
    shown = [event for event in events if event.get("type") == "image_generation.partial_image"]
    rows = [event["coolsd"]["rows"] for event in shown]
    assert rows == sorted(set(rows))
    assert 1 <= len(rows) <= 3
    decided = [event["decided"] for event in events if event.get("type") == "image_generation.progress"]
    assert decided == sorted(set(decided))
    assert pixels(events[-2]["b64_json"]) == pipe("red apple", seed=3, plain=True).images[0].tobytes()


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"prompt": "red apple", "delta": -1}, 400, "delta"),
        ({"prompt": "red apple", "sede": 1}, 400, "sede"),
        ({"prompt": "red apple", "n": 11}, 400, "n"),
        ({"prompt": "red apple", "model": "none"}, 404, "model"),
        ({"prompt": "red apple", "timeout": 1e4}, 400, "timeout"),
        ({"prompt": "red apple", "size": "1x1"}, 400, "size"),
    ],
)
def test_wrong_requests(server: RayServer, body: dict[str, Any], status: int, param: str) -> None:
    answer = server.http.post(IMAGES, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert answer.headers["x-request-id"].startswith("req_")


def test_what_an_engine_refuses_is_told(server: RayServer) -> None:
    """Only a replica knows its words."""
    answer = server.draw(prompt="no such words at all")
    assert answer.status_code == 400, answer.text
    assert "error" in answer.json()


def test_another_method_path_and_host(server: RayServer) -> None:
    assert server.http.get(IMAGES).status_code == 405
    assert server.http.get("/nothing").status_code == 404
    answer = server.http.get("/v1/models", headers={"host": "example.org"})
    assert answer.status_code == 403


def test_the_page_and_the_models(server: RayServer) -> None:
    page = server.http.get("/")
    assert page.status_code == 200
    assert "<html" in page.text
    server.wait_for(lambda: server.http.get("/v1/models").json()["data"][0]["coolsd"]["samples"])
    assert server.http.get("/ready").json()["ready"]
    assert server.document["engines"][0]["replicas"] == [2, 2]


def test_metrics_add_up(server: RayServer) -> None:
    before = server.metric("images_total")
    assert server.draw(n=4).status_code == 200
    assert server.metric("images_total") == before + 4
    assert server.ready_replicas() == 2
    assert server.metric("engine_ready") == 1
    assert server.busy() == 0


def test_a_full_queue_is_a_429_that_says_when_to_come_again(server: RayServer) -> None:
    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{server.url}{IMAGES}", json={"prompt": "red apple", "n": 10}, timeout=PATIENCE)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(40)))
    assert {answer.status_code for answer in answers} == {200, 429}
    full = next(answer for answer in answers if answer.status_code == 429)
    assert full.json()["error"]["code"] == "queue_full"
    assert 1 <= int(full.headers["retry-after"]) <= 3600
    assert server.busy() == 0


def test_a_deadline_is_a_504_and_a_client_that_leaves_frees_its_slot(server: RayServer) -> None:
    answer = server.draw(n=10, timeout=0.001)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}{IMAGES}", json={"prompt": "red apple", "n": 10}, timeout=0.02)
    server.wait_for(lambda: server.busy() == 0)
    assert server.draw().status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_killed_replica_loses_no_request(server: RayServer, stream: bool) -> None:
    server.wait_for(lambda: server.ready_replicas() == 2)
    load = Load(server, 4, n=1, stream=True, partial_images=2) if stream else Load(server, 4, n=6)
    with load.running():
        load.more(4)
        retried = server.metric("images_retried")
        victim = server.replica_pids()[0]
        os.kill(victim, signal.SIGSTOP)  # what it draws is not finished by the time it ends
        time.sleep(0.3)
        kill(victim)
        load.more(20)
        server.wait_for(lambda: server.ready_replicas() == 2 and len(server.replica_pids()) == 2)
        load.more(4)
    assert not alive(victim)
    if not stream:  # of up to 24 images under way it has some; of four streams it may have none
        assert server.metric("images_retried") > retried
    assert not load.errors
    assert set(load.statuses) == {200}


def test_an_engine_that_a_node_has_no_more(server: RayServer, folder: Path) -> None:
    """Its replicas are killed, and find nothing to start again; they come back with the folder."""
    away = folder.with_name("away")
    folder.rename(away)
    for pid in server.replica_pids():
        kill(pid)
    server.wait_for(lambda: "does not have" in server.http.get("/ready").json()["engines"][0]["reason"])
    ready = server.http.get("/ready")
    assert (ready.status_code, ready.json()["engines"][0]["state"]) == (503, "restarting")
    answer = server.draw()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_not_ready")
    assert str(folder.parent) not in ready.text + answer.text
    server.wait_for(lambda: any(line["event"] == "engine not loaded" for line in server.log))
    (line, *_) = [line for line in server.log if line["event"] == "engine not loaded"]
    assert "node 127.0.0.1: " in line["problem"]
    assert "\n" not in line["problem"]
    away.rename(folder)
    server.wait_for(lambda: server.ready_replicas() == 2)
    assert server.draw().status_code == 200


@pytest.fixture(scope="module")
def successor(server: RayServer, folder: Path) -> Iterator[Joined]:
    """The same application deployed again by another command, while clients ask the first."""
    before = server.replica_pids()
    with (load := Load(server, 4, n=2)).running():
        load.more(4)
        again = Joined(folder, "--ray", server.cluster(), "--replicas", 2, "--slots", 2, "--queue", 24)
        end = time.monotonic() + PATIENCE
        while set(server.replica_pids()) & set(before) or server.ready_replicas() != 2:
            assert time.monotonic() < end, "the old replicas did not go"
            time.sleep(0.2)
        load.more(8)
    assert not load.errors
    assert set(load.statuses) == {200}
    yield again
    again.close()


def test_a_rolling_restart_loses_no_request(server: RayServer, successor: Joined) -> None:
    assert successor.url == server.url
    assert len(server.replica_pids()) == 2
    assert successor.draw().status_code == 200


def test_the_end_of_the_successor_drains_and_leaves_ray(server: RayServer, successor: Joined) -> None:
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(successor.draw, n=10) for _ in range(2)]
        server.wait_for(lambda: server.busy() > 0)
        successor.signal(signal.SIGTERM)
        assert successor.ended() == 0
        assert {one.result().status_code for one in asked} == {200}
    assert not server.replica_pids()
    own = descendants(server.process.pid)
    assert own
    server.signal(signal.SIGINT)
    assert server.ended() == 0
    assert not [pid for pid in own if alive(pid)]
