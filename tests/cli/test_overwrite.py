"""No command replaces a file that is not its own: asked of every command that writes where a user says, as typed.

A command either has `--overwrite` and refuses a taken name before it does any work, or writes into a folder (or a file)
that it recognises as its own, and refuses any other. A new command is in neither table, and fails the first test.
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner

from coolsd_rt.cli.main import VERBS
from coolsd_rt.errors import CoolsdError
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from coolsd_rt.spec.schema import schema_text
from tests.cli.conftest import Cli
from tests.quality.qualities import WORDS, write_captions
from tests.sweep.sweeping import write_sweep
from tests.workflows.fakes import FakeEngine

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("tools.demo.benchmark", "tools.paper.power", "tools.paper.questions")
TOOLS = ("random_model", "emoji_references", "train_emoji", "gpu_check")
# Their outputs are folders (or, of precompute, a file) that they know again, and names that nobody else has.
RECOGNISE = {"build", "sweep", "quality", "analyze", "precompute", "gpu_check", "batch"}
WRITES = {"out", "to", "html", "write", "plot", "json_file", "md_file", "folder", "release", "work"}
LOOKS = {"doctor"}  # --out: the folder whose disk is looked at


def commands() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for verb in VERBS:
        found[verb] = importlib.import_module(f"coolsd_rt.cli.{verb.replace('-', '_')}").command
    for module in MODULES:
        found[module] = importlib.import_module(module).command
    for tool in TOOLS:
        file = importlib.import_module(f"tools.{tool}")
        found[tool] = getattr(file, "command", None) or file.main
    return found


@pytest.mark.parametrize("name", [*VERBS, *MODULES, *TOOLS])
def test_every_command_that_writes_has_the_option_or_knows_its_own(name: str) -> None:
    params = {param.name for param in commands()[name].params}
    if not params & WRITES or name in LOOKS:
        assert "overwrite" not in params
    else:
        assert ("overwrite" in params) != (name in RECOGNISE), name


def taken(cli: Cli, words: list[object], path: Path, *, replaced: bool = True, code: int = 0) -> None:
    """`words` refuses the file at `path` before any work, and replaces it with --overwrite."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"mine")
    before = {p: p.stat().st_mtime_ns for p in Path().rglob("*")}
    done = cli(*words)
    assert done.code == 2, done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert path.name in done.err
    assert "--overwrite" in done.err
    assert path.read_bytes() == b"mine"
    assert {p: p.stat().st_mtime_ns for p in Path().rglob("*")} == before
    if replaced:
        done = cli(*words, "--overwrite")
        assert done.code == code, done.err
        assert path.read_bytes() != b"mine"
    assert [p.name for p in path.parent.glob(".*.tmp")] == []


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """idle(): from now on drawing fails the test."""
    return lambda: monkeypatch.setattr(
        FakeEngine, "open", lambda *_: pytest.fail("drawn before the name was looked at")
    )


@pytest.mark.parametrize("name", ["000-red-apple.png", "001-red-apple.png", "sheet.png"])
def test_generate(cli: Cli, engine: Path, name: str) -> None:
    taken(cli, ["generate", engine, "-p", "red apple", "-n", 2], Path("out") / name)


@pytest.mark.parametrize("option", ["--html", "--out"])
def test_bench(cli: Cli, engine: Path, option: str, idle: Callable[[], None]) -> None:
    words = ["bench", engine, "-p", "red apple", "--runs", 1, "--ways", "lossless", option, "new/bench"]
    taken(cli, words, Path("new/bench"))
    idle()
    taken(cli, words, Path("new/bench"), replaced=False)


@pytest.mark.parametrize(("option", "name"), [("--write", "tuned.yaml"), ("--write", "fake.yaml"), ("--plot", "t.png")])
def test_tune(cli: Cli, engine: Path, option: str, name: str, idle: Callable[[], None]) -> None:
    """The spec's own file is a taken name too."""
    idle()
    if name == "fake.yaml":
        before = Path(name).read_bytes()
        done = cli("tune", engine, "--kl", 0.1, "-p", "red apple", option, name)
        assert (done.code, Path(name).read_bytes()) == (2, before)
        assert "--overwrite" in done.err
    else:
        taken(cli, ["tune", engine, "--kl", 0.1, "-p", "red apple", option, name], Path(name), replaced=False)


def test_schema_replaces_its_own_earlier_version_alone(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("s.json")
    taken(cli, ["schema", "--out", path], path)
    path.write_text(schema_text().replace("exponential", "exp"))
    assert cli("schema", "--out", path).code == 0
    assert path.read_text() == schema_text()
    path.write_text('{"title": "my own"}')
    assert cli("schema", "--out", path).code == 2
    assert path.read_text() == '{"title": "my own"}'


def test_convert(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": VQTokenizer(VQConfig(16, 4, 32, (1, 2), 32, 1)).state_dict()}, "vq.pt")
    taken(cli, ["convert", "vq.pt", "--to", "vq.safetensors"], Path("vq.safetensors"))


def test_train_draft(cli: Cli, tiny_spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("red apple\nblue star\ngreen leaf\n")
    words = [
        "train-draft",
        tiny_spec,
        "--data",
        "self:4",
        "--prompts",
        "p.txt",
        "--out",
        "d.safetensors",
        "--steps",
        1,
        "--batch",
        2,
        "--every",
        1,
        "--held-out",
        2,
        "--device",
        "cpu",
    ]
    taken(cli, words, Path("d.safetensors"))
    assert cli(*words).code == 0  # its own
    Path("d.safetensors").write_bytes(b"mine")  # another file in the place of what this training wrote
    done = cli(*words)
    assert (done.code, Path("d.safetensors").read_bytes()) == (2, b"mine")
    assert "one that this training wrote" in done.err


@pytest.mark.parametrize("verb", ["sweep", "quality", "analyze"])
def test_a_folder_of_anything_else_is_refused(
    cli: Cli, engine: Path, tmp_path: Path, verb: str, idle: Callable[[], None]
) -> None:
    sweep = write_sweep(tmp_path / "sweep", "  frechet: {network: features.safetensors}\n", "")
    write_captions(tmp_path / "captions.json", WORDS)
    mine = tmp_path / "there" / "results.json"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    words: dict[str, list[object]] = {
        "sweep": [engine, sweep, "--out", "there"],
        "quality": [engine, "--prompts", "captions.json", "--out", "there"],
        "analyze": [engine, "-p", "red apple", "--recording", "there"],
    }
    idle()
    done = cli(verb, *words[verb])
    assert (done.code, done.out) == (2, "")
    assert "there: expected an empty folder" in done.err
    assert list(mine.parent.iterdir()) == [mine]
    assert mine.read_bytes() == b"mine"


Entry = Callable[[list[object]], tuple[int, str]]


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Entry:
    """enter([module or file, ...words]): exit code and stderr of what `python -m` or `python FILE` runs."""
    monkeypatch.chdir(tmp_path)

    def call(words: list[object]) -> tuple[int, str]:
        what, *rest = map(str, words)
        monkeypatch.setattr(sys, "argv", [what, *rest])
        code: Any = 0
        try:
            if what.endswith(".py"):
                runpy.run_path(what, run_name="__main__")
            else:
                importlib.import_module(what).main()
        except SystemExit as stopped:
            code = stopped.code
        return code or 0, capfd.readouterr().err

    return call


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["tools.demo.benchmark", "engines/fake", "--json", "there"], "there"),
        (["tools.demo.benchmark", "engines/fake", "--markdown", "there"], "there"),
        (["tools.paper.questions", "engines/fake", "--out", "."], "questions.json"),
        (["tools.paper.questions", "engines/fake", "--out", "."], "ambiguity.svg"),
        (["tools.paper.power", ".", "--out", "."], "power.svg"),
        (["tools.paper.power", ".", "--plan", "64", "--out", "."], "plan.json"),
        ([ROOT / "tools/random_model.py", "--family", "llamagen-c2i", "--size", "B", "--out", "."],
         "llamagen-c2i-b-vq.safetensors"),
        ([ROOT / "tools/random_model.py", "--family", "llamagen-t2i", "--size", "XL", "--out", "."],
         "llamagen-t2i-xl-features.safetensors"),
    ],
    ids=str,
)  # fmt: skip
def test_commands_that_are_no_verbs(enter: Entry, engine: Path, words: list[object], name: str) -> None:
    Path(name).write_bytes(b"mine")
    before = sorted(Path().iterdir())
    code, err = enter(words)
    assert code == 2, err
    assert len(err.splitlines()) == 1
    assert name in err
    assert "--overwrite" in err
    assert Path(name).read_bytes() == b"mine"
    assert sorted(Path().iterdir()) == before


def test_the_demos_tools_leave_equal_files_and_refuse_others(tmp_path: Path) -> None:
    from tests.tools.test_emoji_tools import glyphs
    from tools.emoji.common import Workspace
    from tools.emoji_references import write
    from tools.train_emoji import Setup, main

    out, some = tmp_path / "refs", glyphs()
    write(some, out)
    before = {p: (p.read_bytes(), p.stat().st_ino) for p in out.iterdir()}
    write(some, out)
    assert {p: (p.read_bytes(), p.stat().st_ino) for p in out.iterdir()} == before
    victim = sorted(out.glob("*.png"))[-1]
    victim.write_bytes(b"mine")
    sorted(out.glob("*.png"))[0].unlink()
    with pytest.raises(CoolsdError, match=f"{victim.name}.*--overwrite"):
        write(some, out)
    assert victim.read_bytes() == b"mine"
    assert len(list(out.iterdir())) == len(before) - 1  # nothing was written before the refusal
    write(some, out, overwrite=True)
    assert {p: p.read_bytes() for p in out.iterdir()} == {p: data for p, (data, _) in before.items()}

    released = {"vq": "vq.safetensors", "target": "vocab.json", "draft": "draft.safetensors", "prompts": "prompts.txt"}
    for stage, name in released.items():
        release = tmp_path / stage
        release.mkdir()
        (release / name).write_bytes(b"mine")
        setup = Setup(Workspace(tmp_path / "work", release), some, some, "cpu", 0, False)
        assert isinstance(main, click.Group)
        done = CliRunner().invoke(main.commands[stage], [], obj=setup)
        assert isinstance(done.exception, CoolsdError), stage
        assert "--overwrite" in str(done.exception)
        assert [(p.name, p.read_bytes()) for p in release.iterdir()] == [(name, b"mine")]
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("target", ["/dev/null", "pipe"])
@pytest.mark.parametrize("words", [["bench", "-p", "red apple", "--html"], ["bench", "-p", "red apple", "--out"]])
def test_a_device_is_never_replaced(
    cli: Cli, engine: Path, idle: Callable[[], None], words: list[str], target: str
) -> None:
    """As root a rename over /dev/null would make it a plain file, for every program of the machine."""
    os.mkfifo("pipe")
    idle()
    done = cli(words[0], engine, *words[1:], target, "--overwrite")
    assert done.code == 2
    assert "expected a file, found" in done.err
    assert not Path("/dev/null").is_file()
