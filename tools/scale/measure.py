"""Ray's costs beside the plain server's: `python -m tools.scale.measure engines/emoji`.

Two servers run at once, one plain and one on Ray, both with one engine of one thread; they are asked in turns, so that
both meet the same moments of the machine. Images are drawn plainly, so that both draw the same. Figures: seconds of a
request that draws nothing (it is refused) and of an image, in turns; processor time of each part for an image, and
while nobody asks; images a second of four clients; memory; start of the server, and of a replica that was killed; and
`coolsd-rt batch` with and without Ray.

Knows servers and clients. Does not know what the figures are good for.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np

from coolsd_rt import cores, limits
from coolsd_rt.cli.entry import enter, overwrite_option
from coolsd_rt.cli.numbers import number
from coolsd_rt.cli.paths import ENGINE, WRITES
from coolsd_rt.cli.terminal import note, print_json
from coolsd_rt.errors import CoolsdError
from coolsd_rt.machine import machine
from coolsd_rt.serve.pictures import encode_image
from coolsd_rt.store.hashing import sha256_file
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.slot_plans import SlotPlans
from tools.load.clients import PATH
from tools.load.server import LoadedServer, served
from tools.scale import processes

SLOTS = 2
_IDLE = 20.0  # seconds without requests
_CLIENTS = 4
_PATIENCE = 120.0
BODY: dict[str, Any] = {"prompt": "red apple", "plain": True}


def ask(url: str, body: dict[str, Any], status: int) -> float:
    """Ask and return the seconds until the whole answer. Raises CoolsdError for another status."""
    began = time.perf_counter()
    answer = httpx.post(f"{url}{PATH}", json=body, timeout=_PATIENCE)
    seconds = time.perf_counter() - began
    if answer.status_code != status:
        raise CoolsdError(url, expected=f"status {status}", found=str(answer.status_code))
    return seconds


def in_turns(servers: dict[str, LoadedServer], count: int, body: dict[str, Any], status: int) -> dict[str, float]:
    """Ask the servers in turns. Returns the median seconds of a request to each."""
    seconds: dict[str, list[float]] = {name: [] for name in servers}
    for k in range(count):
        for name in sorted(servers, reverse=bool(k % 2)):
            seconds[name].append(ask(servers[name].url, {**body, "seed": k}, status))
    return {name: statistics.median(found) for name, found in seconds.items()}


def busy(servers: dict[str, LoadedServer], images: int, idle: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Draw images in turns. Returns the median seconds, and the processor time of each part beyond its idle one."""
    before, began = {name: _cpu(name, server) for name, server in servers.items()}, time.perf_counter()
    seconds = in_turns(servers, images, BODY, 200)
    after, passed = {name: _cpu(name, server) for name, server in servers.items()}, time.perf_counter() - began
    return {
        "seconds_image": seconds,
        "cpu_image": {
            name: {
                part: max(0.0, now - before[name].get(part, 0) - passed * idle[name].get(part, 0)) / images
                for part, now in after[name].items()
            }
            for name in servers
        },
    }


def _cpu(name: str, server: LoadedServer) -> dict[str, float]:
    return processes.cpu_seconds(server.process.pid, name == "ray")


def idle(servers: dict[str, LoadedServer]) -> dict[str, dict[str, float]]:
    """Return the cores that each part uses while nobody asks."""
    before = {name: _cpu(name, server) for name, server in servers.items()}
    time.sleep(_IDLE)
    after = {name: _cpu(name, server) for name, server in servers.items()}
    return {
        name: {part: (after[name][part] - before[name].get(part, 0)) / _IDLE for part in after[name]} for name in after
    }


def throughput(url: str, images: int) -> float:
    """Return the images a second of four clients."""
    began = time.perf_counter()
    with ThreadPoolExecutor(_CLIENTS) as clients:
        list(clients.map(lambda k: ask(url, {**BODY, "seed": k}, 200), range(images)))
    return images / (time.perf_counter() - began)


def cold_start(server: LoadedServer) -> float:
    """Kill the replica of a server on Ray; return the seconds until the next one draws."""
    pid = processes.replica_of(server.process.pid)
    if pid is None:
        raise CoolsdError("the server on Ray", expected="a replica", found="none")
    os.kill(pid, signal.SIGKILL)
    began = time.perf_counter()
    while time.perf_counter() - began < _PATIENCE:
        if processes.replica_of(server.process.pid) not in (None, pid):
            answer = httpx.post(f"{server.url}{PATH}", json=BODY, timeout=_PATIENCE)
            if answer.status_code == 200:
                return time.perf_counter() - began
        time.sleep(0.1)
    raise CoolsdError("the server on Ray", expected="a new replica", found=f"none within {_PATIENCE:g} s")


def batch(engine: Path, folder: Path, images: int, *options: str) -> dict[str, float]:
    """Run `coolsd-rt batch`; return images a second while it draws, and the seconds around that."""
    prompts = folder / "prompts.txt"
    prompts.write_text("red apple\n" * images)
    out = Path(tempfile.mkdtemp(dir=folder))
    words = ["batch", str(engine), str(prompts), "--out", str(out), "--plain", "--part-rows", "20", "--json", *options]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "coolsd_rt.cli", *words], capture_output=True, text=True, check=False, timeout=1800
    )
    if done.returncode:
        raise CoolsdError("coolsd-rt batch", expected="exit code 0", found=done.stderr[-300:])
    seconds = float(json.loads(done.stdout)["seconds"])
    return {"images_per_second": images / seconds, "seconds_around": time.perf_counter() - began - seconds}


def measure(engine: Path, images: int) -> dict[str, Any]:
    """Measure all figures. images: in turns of each server; about a minute for 20 of the demo."""
    opened = OpenedEngine.at(engine)
    SlotPlans(OpenedEngine.at(engine, None, 1), SLOTS).measure()  # else the servers would, between requests
    plain = ["--slots", str(SLOTS), "--threads", "1"]
    ray = ["--slots", str(SLOTS), "--ray", "--replicas", "1", "--cpus-per-replica", "1"]
    result: dict[str, Any] = {
        "machine": machine(cores.here().threads),
        "engine": {
            "name": opened.manifest.name,
            "bytes": sum(record.size for record in opened.manifest.files.values()),
            "tokens": opened.description.dims.tokens,
            "side": opened.description.side,
        },
        "images": images,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with served(engine, plain, folder / "plain.log") as one:
            note("starting Ray")
            began = time.perf_counter()
            with served(engine, ray, folder / "ray.log") as other:
                result["seconds_start_on_ray"] = time.perf_counter() - began
                servers = {"plain": one, "ray": other}
                for server in servers.values():
                    ask(server.url, BODY, 200)
                note("asking in turns")
                result["idle_cores"] = idle(servers)
                result["seconds_nothing"] = in_turns(servers, 5 * images, {"prompt": "x", "n": 99}, 400)
                result |= busy(servers, images, result["idle_cores"])
                result["images_per_second"] = {
                    name: statistics.median(throughput(server.url, images) for _ in range(3))
                    for name, server in servers.items()
                }
                result["memory"] = {
                    name: processes.memory(server.process.pid, name == "ray") for name, server in servers.items()
                }
                note("killing the replica, three times")
                result["seconds_replica"] = statistics.median(cold_start(other) for _ in range(3))
        began = time.perf_counter()
        with served(engine, plain, folder / "again.log"):
            result["seconds_start_plain"] = time.perf_counter() - began
        note("long jobs")
        one_thread = ("--threads", "1")
        result["batch"] = {
            "plain": batch(engine, folder, 5 * images, *one_thread),
            "ray": batch(engine, folder, 5 * images, *one_thread, "--ray", "--workers", "1"),
        }
    result["answer_bytes"] = _answer_bytes(engine)
    result["hash_bytes_per_second"] = _hash_rate(opened)
    result["encode_seconds_megapixel"] = _encode_seconds()
    return result


def _answer_bytes(engine: Path) -> int:
    """Return the bytes of the answer with one image: its PNG, in base64."""
    with tempfile.TemporaryDirectory() as name, served(engine, ["--threads", "1"], Path(name) / "log") as server:
        return len(httpx.post(f"{server.url}{PATH}", json=BODY, timeout=_PATIENCE).content)


def _hash_rate(opened: OpenedEngine) -> float:
    """Return the bytes a second at which files are hashed, as every replica does with its engine."""
    files = [opened.folder.folder / name for name in opened.manifest.files]
    for file in files:  # the first reading is the disk's
        sha256_file(file)
    began = time.perf_counter()
    for file in files:
        sha256_file(file)
    return sum(file.stat().st_size for file in files) / (time.perf_counter() - began)


def _encode_seconds() -> float:
    """Return the seconds that the front takes to make a PNG in base64 of a megapixel of noise, which is the worst."""
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8).tobytes()
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        encode_image(pixels, 1024, "png", 100)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) / 1.048576


@click.command()
@click.argument("engine", type=ENGINE)
@click.option("--images", type=number(limits.RUNS), default=20, show_default=True, help="Images in turns, of each.")
@click.option("--out", type=WRITES, help="JSON file for the figures.")
@overwrite_option
def main(engine: Path, images: int, out: Path | None, overwrite: bool) -> None:
    """Measure what Ray costs on this machine, beside the plain server. On an idle machine, several minutes."""
    if out is not None:
        check_output(out, "--out", overwrite=overwrite)
    result = measure(engine, images)
    if out is not None:
        write_output(out, (json.dumps(result, indent=1) + "\n").encode(), overwrite=overwrite)
    print_json(result)


if __name__ == "__main__":
    enter(main)
