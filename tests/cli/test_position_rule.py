"""`generate --rule per_position`: what it draws, what it says of its distance, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from coolsd_rt.errors import UserError
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder
from tests.cli.conftest import Cli
from tests.workflows.building import edit
from tests.workflows.row_pipelines import ROW, made, pipeline


@pytest.mark.parametrize("engine", ["precision: fp32", "precision: fp32, backend: torch"])
def test_drafts_are_judged_position_by_position(cli: Cli, engine: str, tmp_path: Path) -> None:
    """As many passes as drafts draw from the target's law, so no distance; fewer say how far they are off."""
    folder = made(pipeline(tmp_path, engine=engine)).folder
    words = ["generate", folder, "-p", "red apple", "-p", "blue star", "-n", 3, "--rule", "per_position", "--json"]
    found = []
    for passes in (0, 1, ROW):
        done = cli(*words, "--refinements", passes, "--pacing", "manual", "--out", tmp_path / f"out{passes}")
        assert done.code == 0, done.err
        found.append(json.loads(done.out))
    none, one, all_ = found
    assert none["tokens_per_pass"] == none["mean_acceptance_length"]
    assert none["acceptance_by_position"] == [1.0] * ROW
    assert all_["tokens_per_pass"] < one["tokens_per_pass"] < none["tokens_per_pass"]
    assert none["distance_per_token"] > one["distance_per_token"] > all_["distance_per_token"] == 0
    said = cli(*words[:-1], "--out", tmp_path / "told").out
    assert "at most 0." in said
    assert "a token in total variation (estimated)" in said
    picture = Image.open(tmp_path / "out1" / found[1]["images"][0]["path"].rpartition("/")[2])
    assert '"rule": "per_position"' in str(picture.info)
    assert '"refinements": 1' in str(picture.info)


def test_the_rule_needs_a_row_head(cli: Cli, tiny_engine: EngineFolder, tmp_path: Path) -> None:
    done = cli("generate", tiny_engine.folder, "-p", "red apple", "--rule", "per_position", "--out", tmp_path / "x")
    assert (done.code, done.err) == (
        2, "error: --rule: expected draft: {model: rows} with it, found the draft eagle\n"
    )  # fmt: skip
    done = cli("generate", tiny_engine.folder, "-p", "red apple", "--plain", "--rule", "per_position",
               "--refinements", 2, "--out", tmp_path / "x")  # fmt: skip
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "found --rule --refinements; drop one" in done.err
    path = pipeline(tmp_path / "rows")
    edit(path, "schedule:", "acceptance: {rule: per_position}\nresampler: {kind: target}\nschedule:")
    with pytest.raises(UserError, match="optimal or residual with the rule per_position"):
        load_spec(path)
