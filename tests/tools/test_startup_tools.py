"""The tools that time the start: what they run and what they make of it. No time is judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from coolsd_rt.errors import CoolsdError
from coolsd_rt.store import EngineFolder
from tools import graph_start, startup
from tools.startup import PARTS, Request, summary


def test_medians_are_of_each_part_and_clock() -> None:
    runs = [
        {part: {"cpu": i + k, "wall": 10.0 * (i + k)} for i, part in enumerate(PARTS)} | {"modules": ["a"] * k}
        for k in (1, 2, 9)
    ]
    found = summary(runs)
    assert found["cpu"] == {part: i + 2 for i, part in enumerate(PARTS)}
    assert found["wall"] == {part: 10.0 * (i + 2) for i, part in enumerate(PARTS)}
    assert found["modules"] == 2


def test_it_times_a_real_engine(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    words = [str(tiny_engine.folder), "--runs", "2", "--plain", "--threads", "1", "--json", str(tmp_path / "f.json")]
    done = CliRunner().invoke(startup.main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "f.json").read_text())
    (runs,) = figures["runs"].values()
    assert len(runs) == 2  # the first process is not counted
    for run in runs:
        assert [run[part]["wall"] for part in PARTS] == sorted(run[part]["wall"] for part in PARTS)
    assert figures["options"] == ["--plain", "--threads", "1"]


def test_a_process_without_a_token_is_an_error_in_its_own_words(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    with pytest.raises(CoolsdError, match="expected a first token, found error: plain decoding"):
        Request(tiny_engine.folder, "red apple", ("--plain", "--delta", "1.1")).run(startup._ROOT, tmp_path)


def test_every_form_of_every_graph_starts(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    words = [str(tiny_engine.folder), "--runs", "1", "--threads", "1", "--json", str(tmp_path / "f.json")]
    done = CliRunner().invoke(graph_start.main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    graphs = json.loads((tmp_path / "f.json").read_text())["graphs"]
    assert set(graphs) == {"condition", "target", "draft", "propose", "image"}
    assert {tuple(row) for row in graphs.values()} == {("megabytes", *graph_start.FORMS)}
