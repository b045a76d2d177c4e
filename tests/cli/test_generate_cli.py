"""generate and parity as typed: exit codes, what stands on stdout, what a failure leaves."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coolsd_rt.install import install_line
from coolsd_rt.workflows import opening
from tests.cli.conftest import Cli
from tests.workflows.fakes import DIMS, FakeEngine


def test_a_table_on_stdout_and_files_in_out(cli: Cli, engine: Path) -> None:
    done = cli("generate", engine, "-p", "red apple", "-p", "yellow star", "-n", 2)
    assert done.code == 0
    for word in (
        "images",
        "tokens/s",
        "accept length",
        "acceptance by position",
        "rounds",
        "seconds in verify",
        "sheet",
    ):
        assert word in done.out
    files = ["out/000-red-apple.png", "out/001-red-apple.png", "out/002-yellow-star.png", "out/003-yellow-star.png"]
    assert sorted(done.err.splitlines()) == files  # each when it is finished
    assert all(Path(f).is_file() for f in [*files, "out/sheet.png"])


def test_json_is_alone_on_stdout(cli: Cli, engine: Path) -> None:
    done = cli("generate", engine, "-p", "blue apple", "--seed", 7, "--out", "there", "--json")
    assert done.code == 0
    document = done.json
    assert [(i["path"], i["prompt"], i["seed"]) for i in document["images"]] == [
        ("there/000-blue-apple.png", "blue apple", 7)
    ]
    assert {
        "images",
        "seconds",
        "tokens_per_second",
        "mean_acceptance_length",
        "acceptance_by_position",
        "rounds",
        "seconds_target",
        "seconds_draft",
        "seconds_verify",
        "seconds_other",
        "warnings",
    } <= set(document)
    assert "blue" in document["warnings"][0]
    assert "warning" in done.err
    assert "blue" in done.err


def test_options_reach_the_loop(cli: Cli, engine: Path) -> None:
    plain = cli("generate", engine, "-p", "red apple", "--plain", "--cfg-scale", 1, "--json").json
    assert plain["mean_acceptance_length"] == 1.0
    assert plain["rounds"] == DIMS.tokens - 1
    words = ["--draft-length", 4, "--schedule", "uniform", "--out", "longer"]
    longer = cli("generate", engine, "-p", "red apple", *words, "--json").json
    assert len(longer["acceptance_by_position"]) == 4


def test_prompts_of_a_file_come_after_typed_ones(cli: Cli, engine: Path) -> None:
    Path("prompts.txt").write_text("yellow star\n\n  green apple \n")
    document = cli("generate", engine, "-p", "red apple", "--prompts", "prompts.txt", "--json").json
    assert [i["prompt"] for i in document["images"]] == ["red apple", "yellow star", "green apple"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "red apple", "--delta", "nan"], "--delta"),
        (["-p", "red apple", "--delta", "-1"], "--delta"),
        (["-p", "red apple", "--delta", "x"], "--delta"),
        (["-p", "red apple", "--schedule", "steep"], "steep"),
        (["-p", "red apple", "--draft-length", "0"], "--draft-length"),
        (["-p", "red apple", "--draft-length", str(DIMS.tokens + 1)], "draft length"),
        (["-p", "red apple", "--plain", "--delta", "2"], "plain"),
        (["-p", "red apple", "-n", "0"], "--images: expected a whole number from 1 to 100000"),
        (["-p", "red apple", "--seed", "-1"], "seed"),
        (["-p", "red apple", "--threads", "0"], "threads"),
        (["-p", "red apple", "--prompts", "no.txt"], "no.txt"),
        (["-p", "red apple", "--schedule", "custom"], "--values"),
        (["-p", "red apple", "--schedule", "custom", "--values", "1,2"], "--values"),
        (["-p", "red apple", "--schedule", "custom", "--values", "1,2,x"], "--values"),
        (["-p", "red apple", "--schedule", "custom", "--values", "1,-2,1"], "--values"),
        (["-p", "red apple", "--values", "1,2,1"], "--values"),
        (["-p", "red apple", "--draft", "medusa"], "medusa"),
        (["-p", "red apple", "--draft", "jacobi", "--plain"], "plain"),
        (["-p", "red apple", "--draft", "jacobi", "--draft-length", "0"], "--draft-length"),
        (["-p", "red apple", "--draft-confidence", "1.5"], "--draft-confidence"),
        (["-p", " "], "empty prompt"),
        ([], "-p"),
    ],
)
def test_the_users_mistakes_exit_with_2_and_one_line(cli: Cli, engine: Path, words: list[str], said: str) -> None:
    done = cli("generate", engine, *words)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert said in done.err
    assert done.out == ""
    assert not Path("out").exists()


def test_every_omega_from_the_command_line(cli: Cli, engine: Path) -> None:
    words = ["-p", "red apple", "--schedule", "custom", "--values", "1.5,1.2,1"]
    document = cli("generate", engine, *words, "--json").json
    with Image.open(document["images"][0]["path"]) as image:
        law = json.loads(image.text["coolsd-rt"])["law"]  # type: ignore[attr-defined]
    assert law["omegas"] == [1.5, 1.2, 1.0]
    assert law["draft"] == "eagle"


def test_jacobi_drafts_from_the_command_line(cli: Cli, engine: Path) -> None:
    document = cli("generate", engine, "-p", "red apple", "--draft", "jacobi", "--draft-length", "4", "--json").json
    with Image.open(document["images"][0]["path"]) as image:
        law = json.loads(image.text["coolsd-rt"])["law"]  # type: ignore[attr-defined]
    assert (law["draft"], law["draft_length"]) == ("jacobi", 4)
    assert document["seconds_draft"] == 0


def test_ngrams_from_the_command_line(cli: Cli, engine: Path) -> None:
    document = cli("generate", engine, "-p", "red apple", "--draft", "ngram", "--json").json
    with Image.open(document["images"][0]["path"]) as image:
        told = json.loads(image.text["coolsd-rt"])  # type: ignore[attr-defined]
    assert told["law"]["draft"] == "ngram"
    assert told["spec"]["draft"]["model"] == "ngram"


def test_no_engine_is_the_users_mistake(cli: Cli, engine: Path) -> None:
    done = cli("generate", "engines/other", "-p", "red apple")
    assert done.code == 2
    assert "engines/fake" in cli("generate", "engines", "-p", "red apple").err


def test_a_tampered_engine_exits_with_1(cli: Cli, engine: Path) -> None:
    file = next(engine.glob("*/vocab.json"))
    data = file.read_bytes().replace(b"apple", b"apply")
    file.unlink()
    file.write_bytes(data)
    done = cli("generate", engine, "-p", "red apple", "--json")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "was changed" in json.loads(done.out)["error"]


def test_a_full_disk_exits_with_1_and_leaves_nothing(cli: Cli, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("coolsd_rt.store.atomic.os.fsync", full)
    done = cli("generate", engine, "-p", "red apple")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "no space left" in done.err
    assert not Path("out").exists()


class Stops(FakeEngine):
    """Ctrl-C comes at the second batch."""

    def open(self, prefix: Any, capacity: int, start: Any = None) -> Any:
        if self.opened:
            raise KeyboardInterrupt
        return super().open(prefix, capacity, start)


def test_ctrl_c_exits_with_130_and_keeps_what_is_whole(cli: Cli, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "load_engine", lambda *_: Stops())
    done = cli("generate", engine, "-p", "red apple", "-n", 4)
    assert done.code == 130
    assert sorted(p.name for p in Path("out").iterdir()) == ["000-red-apple.png", "001-red-apple.png"]
    assert "2 images are complete" in done.err
    assert "interrupted" in done.err


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "open_reference", lambda *_: FakeEngine())


@pytest.mark.usefixtures("reference")
def test_parity_says_passed_and_inspect_shows_it(cli: Cli, engine: Path) -> None:
    done = cli("parity", engine, "-n", 2)
    assert done.code == 0
    assert "parity: passed" in done.out
    assert done.err.splitlines() == ["parity: 2 image pairs", "parity: 2 of 2 image pairs"]
    document = cli("parity", engine, "-n", 2, "--json").json
    assert document["passed"] is True
    assert "passed True" in cli("inspect", engine).out


@pytest.mark.usefixtures("reference")
def test_parity_that_fails_exits_with_1(cli: Cli, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "load_engine", lambda *_: FakeEngine(error=0.5))
    done = cli("parity", engine, "-n", 3)
    assert done.code == 1
    assert "FAILED" in done.out
    assert "first difference of each image" in done.out
    assert "error: logits of the target: expected under 0.001" in done.err
    as_json = cli("parity", engine, "-n", 2, "--json")
    assert as_json.code == 1
    assert as_json.json["passed"] is False


def test_parity_without_torch_says_how_to_get_it(cli: Cli, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = cli("parity", engine)
    assert done.code == 2
    assert install_line("build") in done.err


@pytest.mark.parametrize("verb", ["generate", "parity"])
def test_help_has_an_example(cli: Cli, verb: str) -> None:
    done = cli(verb, "--help")
    assert done.code == 0
    assert f"coolsd-rt {verb} engines/emoji" in done.out
