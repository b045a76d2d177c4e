"""What ends the command or is refused before anything runs: engines, options, addresses."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coolsd_rt.cli.main import run
from coolsd_rt.serve import checks
from coolsd_rt.store import EngineFolder
from tests.cli.test_extras import run as run_with_extras
from tests.cluster.serving.clusters import RayServer
from tests.serve.serving import PATIENCE, ROOT


@pytest.fixture
def copy(tiny_engine: EngineFolder, tmp_path: Path) -> Path:
    """The engine, in a folder that a test may change."""
    folder = tmp_path / "engines" / "tiny" / tiny_engine.manifest.fingerprint
    shutil.copytree(tiny_engine.folder, folder)
    return folder


def test_an_engine_that_no_node_has_ends_the_command(copy: Path) -> None:
    """It is there when the command looks, and gone when the replicas do."""
    words = [sys.executable, "-m", "coolsd_rt.cli", "serve", str(copy), "--ray", "--port", "0"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment())
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line.rstrip("\n"))
        if " ray address=" in line:
            shutil.rmtree(copy)
    assert process.wait(PATIENCE) == 1
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, lines
    assert "engine: expected one that every node loads, found node 127.0.0.1: " in errors[0]
    assert not any("Traceback" in line for line in lines)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **RayServer.variables}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--replicas", "2"], "--replicas: expected --ray beside it, found none; add --ray"),
        (["--autoscale", "1:2"], "--autoscale: expected --ray beside it"),
        (["--cpus-per-replica", "1"], "--cpus-per-replica: expected --ray beside it"),
        (["--ray", "--replicas", "2", "--autoscale", "1:2"], "--replicas: expected it or --autoscale, found both"),
        (["--ray", "--autoscale", "2"], "--autoscale: expected MIN:MAX"),
        (["--ray", "--autoscale", "2:1"], "--autoscale: expected MIN:MAX"),
        (["--ray", "--autoscale", "0:1"], "--autoscale: expected MIN:MAX"),
        (["--ray", "--replicas", "0"], "--replicas: expected a whole number from 1 to 65536, found 0"),
        (["--ray", "--threads", "1"], "--threads: expected none beside --ray, found both; give --cpus-per-replica"),
        (["--ray", "engines/emoji"], "--ray: expected HOST:PORT of a Ray cluster, ray://HOST:PORT, auto, or no value"),
        (["--ray", "127.0.0.1:99999"], "--ray: expected HOST:PORT"),
        (["--ray", "no host:1"], "--ray no host:1: expected a Ray cluster that answers"),
    ],
)
def test_what_the_command_line_refuses(
    tiny_engine: EngineFolder, capfd: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run(["serve", str(tiny_engine.folder), *words]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert said in line


def test_auto_finds_no_address(
    tiny_engine: EngineFolder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RAY_ADDRESS goes before a search of the machine, where a Ray of another test may run."""
    monkeypatch.setenv("RAY_ADDRESS", "here")
    assert run(["serve", str(tiny_engine.folder), "--ray", "auto"]) == 2
    said = "--ray auto: expected a Ray cluster that takes us, on this machine, found RAY_ADDRESS here; start one"
    assert said in capfd.readouterr().err


@contextlib.contextmanager
def _listener(answer: bytes | None) -> Iterator[int]:
    """A port of loopback where somebody answers with these bytes, or with none."""

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = sock.accept()
            with connection:
                if answer is not None:
                    connection.recv(100)
                    connection.sendall(answer)
                connection.recv(1000)
                time.sleep(0.1 if answer is not None else 8)

    with socket.create_server(("127.0.0.1", 0)) as sock:
        threading.Thread(target=serve, args=(sock,), daemon=True).start()
        yield sock.getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "found"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "another service"), (None, "no answer")]
)
def test_an_address_where_no_ray_answers(
    tiny_engine: EngineFolder, capfd: pytest.CaptureFixture[str], answer: bytes | None, found: str
) -> None:
    began = time.monotonic()
    with _listener(answer) as port:
        assert run(["serve", str(tiny_engine.folder), "--ray", f"127.0.0.1:{port}"]) == 2
    assert time.monotonic() - began < 10
    assert f"expected a Ray cluster that answers, found {found}; " in capfd.readouterr().err


def test_a_closed_port_under_json(tiny_engine: EngineFolder, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    assert run(["serve", str(tiny_engine.folder), "--json", "--ray", f"127.0.0.1:{port}"]) == 2
    document = json.loads(capfd.readouterr().out)
    assert (document["exit_code"], document["found"]) == (2, "connection refused")


def test_a_port_in_use(tiny_engine: EngineFolder, capfd: pytest.CaptureFixture[str]) -> None:
    """Ray Serve would share it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert run(["serve", str(tiny_engine.folder), "--ray", "--port", str(port)]) == 2
    assert f"--port {port}: expected a free port, found one in use" in capfd.readouterr().err


def test_more_replicas_than_memory(
    tiny_engine: EngineFolder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "available_memory", lambda: 1 << 30)
    assert run(["serve", str(tiny_engine.folder), "--ray", "--replicas", "20"]) == 2
    assert "memory: expected at most the available 1.1 GB" in capfd.readouterr().err


def test_without_the_extra(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    words = ["serve", str(tiny_engine.folder), "--port", "0", "--ray"]
    (done,) = run_with_extras(("cpu", "serve"), [words], tmp_path)
    assert done["code"] == 2
    assert "[ray]'" in done["err"]
    assert len(done["err"].splitlines()) == 1
