"""`coolsd-rt quality`: what stands on stdout and stderr, exit codes, options that are those of `generate`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from coolsd_rt.cli import main
from coolsd_rt.cli.generate import command as generate
from coolsd_rt.cli.quality import command
from coolsd_rt.quality import run as quality_run
from coolsd_rt.workflows import drawing
from tests.quality.qualities import WORDS, Means, write_captions, write_references
from tests.sweep.sweeping import fake_engine

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quality_run, "InceptionFeatures", Means)
    write_captions(tmp_path / "captions.json", WORDS)
    write_references(tmp_path / "refs", list(WORDS))
    return fake_engine(tmp_path / "engine", monkeypatch)[0]


@pytest.fixture
def call(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """call(*options): exit code, stdout and stderr of `quality` on the files above."""
    monkeypatch.setitem(main.VERBS, "quality", "Quality.")
    monkeypatch.chdir(tmp_path)
    words = ["quality", str(engine), "--prompts", "captions.json", "--reference", "refs", "--out", "out"]

    def run(*options: str) -> tuple[int, str, str]:
        code = main.run([*words, *options])
        return code, *capfd.readouterr()

    return run


def test_rows_intervals_and_what_is_absent(call: Call) -> None:
    code, out, err = call("--inception", "i.safetensors", "--delta", "2", "--rule", "ratio")
    assert code == 0
    lines = out.splitlines()
    assert lines[1].startswith("FID ")
    assert "95%, jackknife over the prompts" in lines[1]
    assert lines[1].split()[-4:] == ["5", "lower", "is", "better"]
    assert sum("not measured" in line for line in lines) == 3
    assert any(line.startswith("CLIP score: hf download") for line in lines)
    assert any("exponential" in line and "delta 2.0" in line for line in lines)
    assert err.splitlines()[0] == "drawing: 5 images"
    assert any(line.startswith("warning: FID of 5 images") for line in err.splitlines())


def test_json_is_the_results_and_nothing_else(call: Call, tmp_path: Path) -> None:
    code, out, err = call("--inception", "i.safetensors", "--json")
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "out" / "results.json").read_text())
    assert json.loads(out)["measures"][0]["name"] == "fid"
    assert all(line.startswith("warning: ") for line in err.splitlines())


def test_the_options_of_generate_are_its_own() -> None:
    theirs, ours = ({p.name: p for p in c.params} for c in (generate, command))
    shared = {
        "delta",
        "schedule",
        "rule",
        "plain",
        "draft",
        "draft_length",
        "temperature",
        "top_k",
        "threads",
        "values",
    }
    assert all(ours[name] is theirs[name] for name in shared)
    assert not {"variants", "file"} & set(ours)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompts", "none.json"], "none.json: expected JSON"),
        (["--delta", "-1"], "--delta"),
        (["--limit", "2", "--inception", "i"], "expected at least 3 images, found 2; drop --inception"),
        (["--plain", "--delta", "2"], "expected no draft and nothing about one, found --delta; drop one"),
        (["--out", "captions.json"], "expected a folder, or a path for a new folder"),
        (["--clip", "none"], "expected a folder of a CLIP model"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(call: Call, tmp_path: Path, options: list[str], said: str) -> None:
    code, out, err = call(*options)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_says_how_far_it_is(call: Call, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    real, drawn = drawing.draw, 0

    def draw(*args: Any, **more: Any) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn == 2:
            raise KeyboardInterrupt
        return real(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(drawing, "draw", draw)
        code, out, err = call(*(["--json"] if as_json else []))
    said = "interrupted: drawing: 2 of 5 images are done; run the same command to resume in out"
    assert (code, err.splitlines()[-1]) == (130, said)
    assert not as_json or json.loads(out)["error"] == said
    assert call()[0] == 0


DOC = Path(__file__).parents[2] / "docs" / "reproduce.md"


def test_every_command_of_the_page_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options and values are those the verbs take; nothing is run."""
    monkeypatch.setitem(main.VERBS, "quality", "Quality.")
    monkeypatch.setitem(main.VERBS, "convert", "Convert.")
    lines = [line for line in DOC.read_text(encoding="utf-8").splitlines() if line.startswith("coolsd-rt ")]
    assert sum(line.startswith("coolsd-rt quality") for line in lines) == 9
    for line in lines:
        _, verb, *words = shlex.split(line)
        found = main.group.get_command(click.Context(main.group), verb)
        assert found is not None
        found.make_context(verb, list(words))
