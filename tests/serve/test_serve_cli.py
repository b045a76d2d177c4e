"""Bad input to `coolsd-rt serve`: one line each, before the port opens, and nothing is loaded."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coolsd_rt.cli.main import run
from coolsd_rt.store import EngineFolder, open_engine

pytest.importorskip("fastapi")

from coolsd_rt.serve import checks
from coolsd_rt.serve import run as running
from coolsd_rt.serve.facts import ServedEngine

Refused = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """refused(*words, code=2): the line that is said. Neither a port nor a process is opened."""

    def not_reached(*_: object) -> None:
        raise AssertionError("the port was opened")

    def call(*words: object, code: int = 2, opens: bool = False) -> str:
        if not opens:
            monkeypatch.setattr(running, "bind", not_reached)
        assert run(["serve", *map(str, words)]) == code
        out, err = capfd.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("error: ")
        return line

    return call


@pytest.fixture
def copy(tiny_engine: EngineFolder, tmp_path: Path) -> Path:
    """The engine, in a folder that a test may change."""
    folder = tmp_path / "engines" / "tiny" / tiny_engine.manifest.fingerprint
    shutil.copytree(tiny_engine.folder, folder)
    return folder


def test_no_engine(refused: Refused, tmp_path: Path) -> None:
    assert "expected an engine" in refused(tmp_path)
    assert "ENGINE" in refused()


def test_a_broken_engine(refused: Refused, copy: Path) -> None:
    graph = copy / "target.onnx"
    data = graph.read_bytes()
    graph.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "target.onnx was changed: expected SHA-256" in refused(copy, code=1)
    graph.unlink()
    assert "expected the file target.onnx, found none" in refused(copy, code=1)


def test_an_engine_that_failed_its_parity_run(refused: Refused, copy: Path) -> None:
    open_engine(copy).with_receipt({"passed": False})
    assert "expected an engine that passed parity, found one that did not" in refused(copy, code=1)


def test_two_engines_of_one_name(refused: Refused, tiny_engine: EngineFolder, copy: Path) -> None:
    assert "the name tiny: expected one engine, found " in refused(copy, tiny_engine.folder)


def test_more_slots_than_memory(refused: Refused, tiny_engine: EngineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "available_memory", lambda: 200 << 20)
    line = refused(tiny_engine.folder, "--slots", 4096)
    assert "memory: expected at most the available 209.7 MB, found about " in line
    most = int(line.rpartition("; give --slots ")[2])
    assert 4 < most < 4096
    monkeypatch.setattr(running, "bind", lambda *_: (_ for _ in ()).throw(SystemExit(99)))
    for slots, fits in ((most, True), (most + 1, False)):
        if fits:
            with pytest.raises(SystemExit):
                run(["serve", str(tiny_engine.folder), "--slots", str(slots)])
        else:
            refused(tiny_engine.folder, "--slots", slots)
    monkeypatch.setattr(checks, "available_memory", lambda: 1 << 20)
    assert "; serve fewer or smaller engines" in refused(tiny_engine.folder)


@pytest.mark.parametrize(
    ("key", "mode", "said"),
    [
        (b"0123456789abcdef", 0o640, "expected a key that its owner alone may read, found others may; chmod 600 "),
        (b"0123456789abcdef", 0o604, "; chmod 600 "),
        (b"", 0o600, "found an empty file; make one: (umask 077; openssl rand -hex 24 > "),
        (b" \n\n", 0o600, "found an empty file"),
        (b"0123456789abcde\n", 0o600, "expected one key of 16 to 512 printable characters without spaces, found 15"),
        (b"a" * 513, 0o600, "found 513"),
        (b"0123456789 abcdef", 0o600, "found other characters"),
        (b"0123456789abcdef\n0123456789abcdef\n", 0o600, "found other characters"),
        ("0123456789abcdefé".encode(), 0o600, "found other characters"),
    ],
)
def test_a_key_that_is_none(
    refused: Refused, tiny_engine: EngineFolder, tmp_path: Path, key: bytes, mode: int, said: str
) -> None:
    file = tmp_path / "key"
    file.write_bytes(key)
    file.chmod(mode)
    line = refused(tiny_engine.folder, "--api-key-file", file)
    assert said in line
    assert "0123456789" not in line


def test_a_port_in_use(refused: Refused, tiny_engine: EngineFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(tiny_engine.folder, "--port", port, opens=True)
    assert line == f"error: --port {port}: expected a free port, found one in use; give another --port"


@pytest.mark.parametrize("host", ["no such host", "192.0.2.1", "", "a" * 5000, "\u2603"])
def test_a_host_that_is_not_here(refused: Refused, tiny_engine: EngineFolder, host: str) -> None:
    line = refused(tiny_engine.folder, "--host", host, "--port", 0, opens=True)
    assert "expected an address of this machine" in line
    assert len(line) < 400


@pytest.mark.parametrize("option", ["--port=65536", "--slots=0", "--queue=-1", "--timeout=0", "--log-format=xml"])
def test_options_out_of_range(refused: Refused, tiny_engine: EngineFolder, option: str) -> None:
    assert option.partition("=")[0] in refused(tiny_engine.folder, option)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_an_engine_that_does_not_load_ends_the_server(
    tiny_engine: EngineFolder,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    """What only its own process can find, when it starts for the first time: here it looks for another build."""
    right = ServedEngine.setup.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(ServedEngine, "setup", property(lambda engine: replace(right(engine), fingerprint="0" * 16)))
    assert run(["serve", str(tiny_engine.folder), "--port", "0", *words]) == 1
    out, err = capfd.readouterr()
    assert "as it was when the server started, found another; start the server again" in err.splitlines()[-1]
    assert (json.loads(out)["exit_code"] == 1) if words else not out


def test_under_json_an_error_is_one_document(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", str(tmp_path), "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["exit_code"] == 2
