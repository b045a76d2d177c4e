"""Names from specs, manifests, checkpoints, prompts and paths reach a terminal as text, through the real commands."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Result
from tools.demo import benchmark as demo

EVIL = "a\x1b]0;own\x07\x1b[31mb\r\x9bc\u202ed\u2028e\x7f[bold]f\x08g"
COMMANDS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
LOUD = {*COMMANDS, "\u2028", "\u2029"} - {"\n"}

Words = list[object]


def manifest(engine: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The engine's manifest, changed."""
    path = engine / (engine / "current").read_text().strip() / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return engine


def spec(engine: Path, old: str, new: str) -> Path:
    """The spec beside the engine, with something else in it."""
    text = Path("fake.yaml").read_text()
    assert old in text
    path = Path("evil.yaml")
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def prompts() -> Path:
    path = Path("prompts.txt")
    path.write_text(f"red apple\n{EVIL}\n", encoding="utf-8", newline="\n")
    return path


def checkpoint() -> Path:
    """A safetensors file with one tensor of that name, and the name in its metadata."""
    about = {EVIL: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {EVIL: EVIL}}
    header = json.dumps(about).encode()
    path = Path("evil.safetensors")
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    return path


QUOTED = json.dumps(EVIL)
CASES: dict[str, Callable[[Path], Words]] = {
    "spec key": lambda e: ["validate", spec(e, "name: fake", f"name: fake\n{QUOTED}: 1")],
    "spec value": lambda e: ["validate", spec(e, "name: fake", f"name: {QUOTED}")],
    "spec, a file it names": lambda e: ["validate", spec(e, "target.safetensors", f"target{EVIL[0]}.safetensors")],
    "spec, not YAML": lambda e: ["validate", spec(e, "name: fake", f"name: [{EVIL}")],
    "spec's name": lambda e: ["validate", f"{EVIL}.yaml"],
    "folder's name": lambda e: ["inspect", f"{EVIL}/{EVIL}"],
    "a name that is not UTF-8": lambda e: ["validate", "\udcff\udc80.yaml"],
    "manifest, the name": lambda e: ["inspect", manifest(e, lambda d: d.update(name=EVIL))],
    "manifest, a field": lambda e: ["inspect", manifest(e, lambda d: d.update({EVIL: 1}))],
    "manifest, tools": lambda e: ["inspect", manifest(e, lambda d: d["tools"].update({EVIL: EVIL}))],
    "manifest, a receipt": lambda e: ["inspect", manifest(e, lambda d: d.update(parity={EVIL: EVIL}))],
    "manifest, a file": lambda e: ["generate", manifest(e, lambda d: d["files"].update({EVIL: {}})), "-p", "red"],
    "prompt": lambda e: ["generate", e, "-p", EVIL],
    "prompt, words nobody knows": lambda e: ["generate", e, "-p", "red \x1b[31mblue"],
    "prompt that is not UTF-8": lambda e: ["generate", e, "-p", "red \udcff"],
    "prompts": lambda e: ["generate", e, "--prompts", prompts()],
    "out": lambda e: ["generate", e, "-p", "red apple", "--out", EVIL],
    "bench": lambda e: ["bench", e, "-p", EVIL, "--runs", 1],
    "tensor": lambda e: ["convert", checkpoint(), "--to", "x.safetensors"],
    "tensor, family": lambda e: ["convert", checkpoint(), "--to", f"{EVIL}.safetensors", "--family", "vq"],
    "family": lambda e: ["convert", checkpoint(), "--to", "x.safetensors", "--family", EVIL],
    "hub": lambda e: ["convert", f"org/{EVIL}", "--to", "x.safetensors"],
    "verb": lambda e: [EVIL],
    "option": lambda e: ["generate", f"--{EVIL}"],
    "choice": lambda e: ["generate", e, "--schedule", EVIL],
    "numbers": lambda e: ["generate", e, "-p", "red", "--values", EVIL],
}


def loud(done: Result) -> set[str]:
    """What a terminal would obey in it, or what no stream can carry."""
    done.out.encode(), done.err.encode()
    return (set(done.out) | set(done.err)) & LOUD


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_of_it_commands_the_terminal(cli: Cli, engine: Path, case: str, as_json: bool) -> None:
    pytest.importorskip("torch")
    words = [str(word) for word in CASES[case](engine)]
    done = cli(*words, *(["--json"] if as_json else []))
    assert loud(done) == set()
    assert done.out + done.err
    assert "Traceback" not in done.err
    assert done.code in (0, 1, 2)
    if done.code:
        assert all(line.startswith(("error: ", "warning: ")) for line in done.err.splitlines())
    if as_json:
        assert done.out.isascii()
        json.loads(done.out)


def test_a_traceback_is_text_too(cli: Cli, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOLSD_TRACEBACK", "1")
    done = cli("validate", f"{EVIL}.yaml")
    assert "Traceback" in done.err
    assert loud(done) == set()


def test_modules_that_are_run_are_no_way_around(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    for words in ([EVIL], ["x", f"--{EVIL}"], ["x", "--runs", EVIL]):
        monkeypatch.setattr(sys, "argv", ["demo", *words])
        with pytest.raises(SystemExit):
            demo.main()
        out, err = capfd.readouterr()
        assert loud(Result(2, out, err)) == set()
        assert len(err.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_folder_with_such_files_is_listed_as_text(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{EVIL}.yaml").touch()
    (tmp_path / os.fsdecode(b"\xff.yaml")).touch()
    done = cli("validate", "none.yaml")
    assert "there is: " in done.err
    assert loud(done) == set()
