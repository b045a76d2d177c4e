"""`--features` and `--text-encoder` reach every verb that reads prompts: an engine of words refuses both by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from coolsd_rt.store import EngineFolder
from tests.cli.conftest import Cli

SWEEP = "version: 1\nimages: 2\npoints: {relaxed: {set: {schedule.delta: 1.1}}}\n"


@pytest.mark.parametrize("option", ["--features", "--text-encoder"])
@pytest.mark.parametrize("verb", ["generate", "parity", "bench", "analyze", "tune", "sweep"])
def test_an_engine_of_words_refuses_them(
    cli: Cli, tiny_engine: EngineFolder, tmp_path: Path, verb: str, option: str
) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    more: dict[str, list[object]] = {
        "generate": ["-p", "red apple"],
        "tune": ["--kl", "0.1"],
        "sweep": [tmp_path / "sweep.yaml", "--out", tmp_path / "out"],
    }
    given = tmp_path if option == "--text-encoder" else tmp_path / "sweep.yaml"
    done = cli(verb, tiny_engine.folder, *more.get(verb, []), option, given)
    assert done.code == 2, done.err
    assert "a target that reads words; leave them out" in done.err
