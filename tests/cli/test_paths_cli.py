"""Every path on every command line is refused in one line and at once where it is not what it should be.

The table is checked against click's own parameters: a new option that is a path, and has no row, fails.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from coolsd_rt.cli.entry import enter
from coolsd_rt.cli.main import VERBS, group, run
from coolsd_rt.cli.paths import PathType
from tests.at_once import at_once
from tests.cli.test_verbs import SPEC, WORDS

torch = pytest.importorskip("torch")

MODULES = {
    "demo": "tools.demo.benchmark:command",
    "questions": "tools.paper.questions:command",
    "power": "tools.paper.power:command",
    "emoji_references": "tools.emoji_references:main",
    "emoji_quality": "tools.emoji_quality:main",
    "emoji_continuous": "tools.emoji_continuous:main",
    "int8_forms": "tools.int8_forms:main",
    "train_emoji": "tools.train_emoji:main",
    "random_model": "tools.random_model:command",
    "gpu_check": "tools.gpu_check:command",
    "startup": "tools.startup:main",
    "graph_start": "tools.graph_start:main",
    "image_decoder": "tools.image_decoder:main",
    "pacing": "tools.pacing:command", "rivals_recorded": "tools.paper.rivals_recorded:command",
}  # fmt: skip
"""Commands that are run as `python -m` or as a file."""

READS, SPECS, STDIN, FOLDER = "reads", "spec", "stdin", "folder"
ENGINE, WRITES, WRITES_IN = "engine", "writes", "writes in"
READING = {"features": READS, "text_encoder": FOLDER}
TABLE: dict[str, dict[str, str]] = {
    "build": {"file": SPECS, "out": WRITES_IN},
    "generate": {"engine": ENGINE, "file": STDIN, "out": WRITES_IN, **READING},
    "parity": {"engine": ENGINE, "spec_file": SPECS, **READING},
    "inspect": {"path": ENGINE, "spec_file": SPECS}, "rivals_recorded": {"engine": ENGINE, "out": WRITES},
    "validate": {"file": SPECS},
    "convert": {"to": WRITES, "mirror": FOLDER},
    "doctor": {"out": WRITES_IN},
    "bench": {"engine": ENGINE, "spec_file": SPECS, "html": WRITES, "out": WRITES, **READING},
    "analyze": {"engine": ENGINE, "spec_file": SPECS, "folder": WRITES_IN, **READING},
    "sweep": {"engine": ENGINE, "spec": SPECS, "out": WRITES_IN, "engine_spec": SPECS, **READING},
    "train-draft": {
        "spec": SPECS, "out": WRITES, "file": STDIN, "measure_on": STDIN, "start_from": READS, "work": WRITES_IN,
        "tensorboard": WRITES_IN,
    },
    "quality": {
        "engine": ENGINE, "prompts": STDIN, "reference": FOLDER, "out": WRITES_IN, "inception": READS, "clip": FOLDER,
        "image_reward": FOLDER, "hpsv2": READS, "reference_cache": WRITES_IN, **READING,
    },
    "tune": {
        "engine": ENGINE, "folder": WRITES_IN, "write": WRITES, "plot": WRITES, "spec_file": SPECS, **READING,
    },
    "serve": {"engines": ENGINE, "api_key_file": READS}, "schema": {"out": WRITES},
    "batch": {"engine": ENGINE, "prompts": READS, "out": WRITES_IN, **READING},
    "precompute": {"spec": SPECS, "file": STDIN, "out": WRITES, "encoder": FOLDER},
    "demo": {"engine": ENGINE, "spec_file": SPECS, "json_file": WRITES, "md_file": WRITES},
    "questions": {"engine": ENGINE, "out": WRITES_IN, "spec_file": SPECS},
    "power": {"folder": FOLDER, "engine": ENGINE, "references": FOLDER, "network": READS, "out": WRITES_IN,
              "spec_file": SPECS},
    "emoji_references": {"out": WRITES_IN}, "emoji_quality": {"engine": ENGINE},
    "int8_forms": {"engines": ENGINE, "json_file": WRITES}, "train_emoji": {"work": WRITES_IN, "release": WRITES_IN},
    "random_model": {"out": WRITES_IN}, "pacing": {"engine": ENGINE, "json_file": WRITES},
    "startup": {"engine": ENGINE, "trees": FOLDER, "json_file": WRITES}, "schedule": {},
    "graph_start": {"engine": ENGINE, "json_file": WRITES}, "image_decoder": {"weights": READS, "json_file": WRITES},
    "emoji_continuous": {"folder": FOLDER, "out": WRITES_IN}, "gpu_check": {"out": WRITES_IN},
}  # fmt: skip
NO_NAMES = ("empty", "nul", "surrogate", "too long")
WRONG = {
    READS: ("pipe", "device", "folder", "missing", "loop", *NO_NAMES),
    FOLDER: ("pipe", "device", "file", "missing", "loop", *NO_NAMES),
    ENGINE: ("pipe", "device", "file", "folder", "missing", "loop", *NO_NAMES),
    WRITES: ("pipe", "device", "folder", "below a file", *NO_NAMES),
    WRITES_IN: ("pipe", "device", "file", "below a file", "loop", *NO_NAMES),
}
WRONG |= {SPECS: WRONG[READS], STDIN: WRONG[READS]}
ASKED = {
    "generate": ["-p", "red apple"], "tune": ["--kl", "0.1"], "train-draft": ["--data", "self:2"], "train_emoji": [],
    "precompute": ["-p", "red apple"], "random_model": ["--family", "llamagen-c2i", "--size", "B"],
}  # fmt: skip
"""What a verb needs beside paths."""


def command_of(name: str) -> click.Command:
    if name in VERBS:
        found = group.get_command(click.Context(group), name)
        assert found is not None
        return found
    module, _, attribute = MODULES[name].partition(":")
    command: click.Command = getattr(pytest.importorskip(module, exc_type=ImportError), attribute)
    return command


def paths_of(name: str) -> dict[str, click.Parameter]:
    return {str(p.name): p for p in command_of(name).params if isinstance(p.type, click.Path | click.File)}


@pytest.mark.parametrize("name", [*VERBS, *MODULES])
def test_every_path_of_click_has_a_row(name: str) -> None:
    found = paths_of(name)
    assert set(found) == set(TABLE[name]), "a row in TABLE for each path"
    assert all(isinstance(p.type, PathType) for p in found.values()), "a type of cli/paths.py for each path"


def test_every_command_that_is_a_file_is_in_the_table() -> None:
    root = Path(__file__).parents[2]
    commands = {p.stem for p in (root / "tools").glob("*.py") if "@click.command" in p.read_text(encoding="utf-8")}
    commands |= {
        p.stem
        for p in (root / "coolsd_rt").rglob("*.py")
        if p.parent.name != "cli" and "@click.command" in p.read_text(encoding="utf-8")
    }
    assert commands <= set(MODULES), commands - set(MODULES)


@pytest.fixture
def places(tmp_path: Path, engine: Path) -> dict[str, str]:
    """What a path can be beside what it should. The device is a link to one: nothing of the machine is at risk."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a file")
    (tmp_path / "loop").symlink_to("loop")
    kinds = ("pipe", "device", "folder", "file", "loop", "missing")
    named = {kind: str(tmp_path / kind) for kind in kinds} | {"below a file": str(tmp_path / "file" / "x")}
    return named | {"empty": "", "nul": f"{tmp_path}/a\0b", "surrogate": f"{tmp_path}/\udc80", "too long": "x" * 300}


@pytest.fixture
def good(tmp_path: Path, engine: Path) -> dict[str, str]:
    """A right path of each role, for the others of a command line."""
    (tmp_path / "toy.yaml").write_text(SPEC)
    WORDS.save(tmp_path / "vocab.json")
    (tmp_path / "captions.json").write_text(json.dumps([{"id": 1, "caption": "red apple"}]))
    (tmp_path / "sweep.yaml").write_text("version: 1\nimages: 2\npoints: {a: {set: {schedule.delta: 1.1}}}\n")
    return {
        "sweep": str(tmp_path / "sweep.yaml"), FOLDER: str(tmp_path),
        SPECS: str(tmp_path / "toy.yaml"), STDIN: str(tmp_path / "captions.json"), ENGINE: str(engine),
        WRITES: str(tmp_path / "new.safetensors"), WRITES_IN: str(tmp_path / "new"), READS: str(engine),
    }  # fmt: skip


def call(name: str, args: list[str]) -> int:
    if name in VERBS:
        return run([name, *args])
    try:
        enter(command_of(name), args)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def line_of(name: str, wrong: click.Parameter, value: str, good: dict[str, str]) -> list[str]:
    """A command line whose one wrong part is `value`."""
    table, words = TABLE[name], list(ASKED.get(name, []))
    for p in command_of(name).params:
        role = "sweep" if (name, p.name) == ("sweep", "spec") else table.get(str(p.name), "")
        given = value if p is wrong else good[role] if p.required and role else None
        if isinstance(p, click.Argument):
            words.append("x.pt" if given is None else given)
        elif given is not None:
            words += [p.opts[0], given]
    return words + (["vq"] if name == "train_emoji" else [])


@pytest.mark.parametrize(("name", "option"), [(name, option) for name, row in TABLE.items() for option in row])
def test_a_wrong_path_is_one_line_and_exit_code_2(
    name: str,
    option: str,
    places: dict[str, str],
    good: dict[str, str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parameter = paths_of(name)[option]
    for kind in WRONG[TABLE[name][option]]:
        with at_once(f"{name} {option}, {kind}"):
            code = call(name, line_of(name, parameter, places[kind], good))
        err = capfd.readouterr().err.splitlines()
        said = [line for line in err if line.startswith("error: ")]  # there may be notes of the work before it
        assert code == 2, (kind, err)
        assert len(said) == 1, (kind, err)
        assert err[-1] == said[0], (kind, err)
        assert "unexpected" not in said[0], (kind, said)
        if kind in ("pipe", "device"):
            assert places[kind] in said[0], (kind, said)
            assert f"found a {'named pipe' if kind == 'pipe' else kind}" in said[0] or "found the " in said[0], said


RIGHT = {
    READS: ("file",), SPECS: ("file",), STDIN: ("file", "-", "/dev/fd/0"), FOLDER: ("folder",),
    ENGINE: ("folder", "file"), WRITES: ("file", "new"), WRITES_IN: ("folder", "new"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "option"), [(name, option) for name, row in TABLE.items() for option in row])
def test_a_right_path_is_taken(name: str, option: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    parameter = paths_of(name)[option]
    for kind in RIGHT[TABLE[name][option]]:
        path = tmp_path / kind if kind in ("file", "folder", "new") else Path(kind)
        assert parameter.type.convert(str(path), parameter, None) == path


@pytest.mark.parametrize("kind", ["pipe", "device", "nul", "too long"])
@pytest.mark.parametrize(
    "words",
    [
        ("convert", "{}", "--to", "x.safetensors"),
        ("train-draft", "toy.yaml", "--data", "{}", "--out", "x.safetensors"),
    ],
)
def test_words_that_may_be_paths(
    words: tuple[str, ...], kind: str, places: dict[str, str], tiny_spec: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("toy.yaml").symlink_to(tiny_spec)
    args = [str(tiny_spec) if word == "toy.yaml" else word.format(places[kind]) for word in words]
    with at_once(f"{words[0]}, {kind}"):
        assert run(args) == 2
    assert len(capfd.readouterr().err.splitlines()) <= 3  # a training says beforehand what it draws


def test_prompts_on_standard_input(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`-` and the shell's <(...) are read to their end."""
    for give in (by_dash, by_descriptor):
        with give("red apple\n\nblue star\n", monkeypatch) as name:
            assert run(["generate", str(engine), "--prompts", name, "--out", f"out-{give.__name__}", "--json"]) == 0
        document = json.loads(capfd.readouterr().out)
        assert [image["prompt"] for image in document["images"]] == ["red apple", "blue star"]


@contextmanager
def by_dash(text: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    yield "-"


@contextmanager
def by_descriptor(text: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    try:
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)


BAD_PROMPTS: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (b"red apple\nblue \xff star\n", "found byte 0xff on line 2, which is not UTF-8"),
    "NUL": (b"red apple\nblue\0star\n", ":2: expected a text file in UTF-8, one prompt a line, found a NUL character"),
    "a long line": (b"red apple\n" + b"x" * 200_000, ":2: expected a line of at most 100000 characters, found 200000"),
    "empty lines": (b"\n  \n\t\n", "expected one prompt a line, found none"),
}


@pytest.mark.parametrize("kind", BAD_PROMPTS)
@pytest.mark.parametrize("verb", ["generate", "precompute", "train-draft"])
def test_a_file_that_is_no_list_of_prompts(
    kind: str, verb: str, good: dict[str, str], tmp_path: Path, tiny_spec: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, said = BAD_PROMPTS[kind]
    (tmp_path / "prompts.txt").write_bytes(data)
    words = {
        "generate": [good[ENGINE]],
        "precompute": [good[SPECS]],
        "train-draft": [str(tiny_spec), "--data", "self:2", "--out", good[WRITES]],
    }[verb]
    assert call(verb, [*words, "--prompts", str(tmp_path / "prompts.txt")]) == 2
    err = capfd.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_byte_order_mark_and_other_line_ends_are_no_part_of_a_prompt(
    engine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbfred apple\r\nblue star\r\n")
    assert run(["generate", str(engine), "--prompts", str(tmp_path / "prompts.txt"), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert [image["prompt"] for image in document["images"]] == ["red apple", "blue star"]
