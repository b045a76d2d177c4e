"""bench as typed: what stands on stdout and stderr, the files, exit codes."""

from __future__ import annotations

import errno
import json
import re
import sys
from pathlib import Path

import pytest

from coolsd_rt.install import install_line
from coolsd_rt.workflows import opening
from tests.cli.conftest import Cli
from tests.workflows.fakes import FakeEngine


def test_tables_and_verdicts_on_stdout_and_runs_on_stderr(cli: Cli, engine: Path) -> None:
    done = cli("bench", engine, "-p", "red apple", "--threads", 1, "--delta", 1.3)
    assert done.code == 0
    lines = done.out.splitlines()
    assert "medians of 6 interleaved runs" in lines[0]
    assert lines[1:3] == ["", "speed"]
    assert lines[3].split() == ["variant", "tokens/s", "s/image", "vs", "plain"]
    assert [line.split("  ")[0] for line in lines[4:10]] == [
        "plain",
        "lossless",
        "COOL-SD, delta 1.3",
        "uniform, delta 1.3",
        "linear, delta 1.3",
        "jacobi",
    ]
    assert "the accept length counts the resampled or bonus token" in done.out
    verdicts = [line for line in lines if " plain decoding; a round brings " in line]
    assert len(verdicts) == 10
    reason = "the engine has no code neighbours; build it again with image.neighbours"
    assert [re.sub(r"(auto): .*", r"\1", line) for line in done.err.splitlines()] == [  # without the plan
        f"warning: lantern++ is left out: {reason}",
        f"warning: lantern++-gstar is left out: {reason}",
        "bench: 77 runs of 11 variants",
        "bench: 77 of 77 runs of 11 variants, auto",
        "bench: 28 runs of 4 variants",
        "bench: 28 of 28 runs of 4 variants, 2 images, auto",
    ]


def test_json_is_alone_on_stdout_and_the_same_as_the_file(cli: Cli, engine: Path) -> None:
    done = cli("bench", engine, "--runs", 1, "--ways", "lossless", "--batch", 2, "--out", "new/bench.json", "--json")
    assert done.code == 0
    assert done.err.splitlines() == ["new/bench.json: written"]
    document = done.json
    assert document == json.loads(Path("new/bench.json").read_text())
    assert [variant["way"] for variant in document["ways"]] == ["plain", "lossless"]
    assert document["engine"]["name"] == "fake"
    assert document["command"].startswith("coolsd-rt bench engines/fake --runs 1 --batch 2 --seed 0 --variant lossless")
    assert [len(variant["tokens_per_second"]["samples"]) for variant in document["ways"]] == [1, 1]
    prompts = {job["prompt"] for jobs in document["turns"] for job in jobs}
    assert prompts <= {"red", "green", "yellow", "apple", "star"}  # the vocabulary's words: no prompts beside it


def test_the_page_is_written(cli: Cli, engine: Path) -> None:
    done = cli("bench", engine, "--runs", 1, "--variant", "jacobi", "-p", "red <apple>", "--html", "bench.html")
    assert done.code == 0
    assert done.err.splitlines()[-1] == "bench.html: written"
    assert "too few runs (1)" in done.out
    page = Path("bench.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "red &lt;apple&gt;" in page
    assert [p.name for p in Path().glob(".*")] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--runs", "0"], "--runs"),
        (["--runs", "x"], "--runs"),
        (["--batch", "3"], "--batch: expected from 1 to the engine's 2"),
        (["--seed", "-1"], "--seed"),
        (["--ways", "fast"], "--ways"),
        (["--ways", "lantern++"], "neighbours"),
        (["--delta", "nan"], "--delta"),
        (["--delta", "-1"], "--delta"),
        (["--draft-length", "0"], "--draft-length: expected a whole number from 1 to 65536"),
        (["--jacobi-length", "99"], "--jacobi-length: expected from 1 to the image's 16 tokens, found 99"),
        (["--confidence", "2"], "--confidence"),
        (["--threads", "0"], "--threads"),
        (["-p", " "], "empty prompt"),
        (["--spec", "no.yaml"], "no.yaml"),
        (["--html", "engines"], "--html engines: expected a file, found a folder"),
        (["--out", "fake.yaml/bench.json"], "fake.yaml"),
    ],
)
def test_the_users_mistakes_exit_with_2_and_one_line(
    cli: Cli, engine: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "open", lambda *_: pytest.fail("drawn before the mistake was seen"))
    done = cli("bench", engine, *words)
    assert done.code == 2
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert said in done.err


def test_no_engine_is_the_users_mistake(cli: Cli, engine: Path) -> None:
    assert cli("bench", "engines/other").code == 2
    assert "engines/fake" in cli("bench", "engines").err


@pytest.mark.parametrize(("package", "words"), [("scipy", []), ("matplotlib", ["--html", "bench.html"])])
def test_a_missing_package_is_said_before_the_work(
    cli: Cli, engine: Path, package: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "open", lambda *_: pytest.fail("drawn before the package was missed"))
    for name in [n for n in sys.modules if n.startswith("coolsd_rt.bench.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    done = cli("bench", engine, *words)
    assert done.code == 2
    assert install_line("measure") in done.err
    assert cli("bench", "--help").code == 0


def test_a_full_disk_leaves_the_figures_on_stdout_and_no_file(
    cli: Cli, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("coolsd_rt.store.atomic.os.fsync", full)
    done = cli("bench", engine, "--runs", 1, "--ways", "lossless", "--out", "bench.json")
    assert done.code == 1
    assert "lossless" in done.out
    assert "no space left" in done.err.splitlines()[-1]
    assert list(Path().glob("*bench.json*")) == []


def test_ctrl_c_exits_with_130(cli: Cli, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stops(FakeEngine):
        def open(self, prefix: object, capacity: int, start: object = None) -> object:  # type: ignore[override]
            raise KeyboardInterrupt

    monkeypatch.setattr(opening, "load_engine", lambda *_: Stops())
    done = cli("bench", engine)
    assert done.code == 130
    assert done.err.splitlines()[-1] == "interrupted"


def test_help_has_an_example(cli: Cli) -> None:
    done = cli("bench", "--help")
    assert done.code == 0
    assert "coolsd-rt bench engines/emoji" in done.out
