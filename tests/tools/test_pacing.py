"""The table of pacing: which plans are drawn beside the one that was taken, and what is judged. No time is judged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows.plans import PLAIN, DraftPlan
from tools.pacing import Measured, command, fresh_record

ONE, TWO = DraftPlan("eagle", 1), DraftPlan("eagle", 2)


@pytest.mark.parametrize(
    ("taken", "one", "two", "best", "holds"),
    [
        (PLAIN, [0.9, 0.8, 0.9], [0.7, 0.7, 0.7], PLAIN, True),
        (PLAIN, [1.0, 1.05, 1.2], [0.7, 0.7, 0.7], ONE, True),  # the median is within 5%
        (PLAIN, [1.0, 1.1, 1.2], [0.7, 0.7, 0.7], ONE, False),  # plain decoding is .91 of the best
        (ONE, [0.96, 0.96, 1.5], [0.7, 0.7, 0.7], PLAIN, False),
        (ONE, [0.98, 0.98, 0.5], [0.7, 0.7, 0.7], PLAIN, True),
        (TWO, [1.5, 1.5, 1.5], [1.45, 1.45, 1.0], ONE, True),
    ],
)
def test_both_goals_are_judged_by_medians(
    taken: DraftPlan, one: list[float], two: list[float], best: DraftPlan, holds: bool
) -> None:
    found = Measured(2, taken, {ONE: one, TWO: two})
    assert (found.best, found.holds) == (best, holds)


def test_the_record_of_this_machine_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COOLSD_CACHE", str(tmp_path))
    with fresh_record():
        assert os.environ["COOLSD_CACHE"] != str(tmp_path)
    assert os.environ["COOLSD_CACHE"] == str(tmp_path)


def test_it_draws_every_plan_on_a_real_engine(
    tiny_engine: EngineFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COOLSD_CACHE", str(tmp_path / "cache"))
    words = [str(tiny_engine.folder), "--images", "1", "--images", "2", "--turns", "2", "--lossless", "--threads", "1"]
    done = CliRunner().invoke(command, [*words, "--json", str(tmp_path / "f.json")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "f.json").read_text())
    assert [one["images"] for one in document["sizes"]] == [1, 2]
    for one in document["sizes"]:
        drawn = {(plan["draft"], plan["draft_length"]) for plan in one["plans"]}
        assert {draft for draft, _ in drawn} == {"eagle", "jacobi"}
        assert (one["taken"]["draft"], one["taken"]["draft_length"]) in {*drawn, (None, 0)}
        assert all(len(plan["turns"]) == 2 for plan in one["plans"])
    assert not (tmp_path / "cache").exists()


def test_more_images_than_the_engine_takes_is_one_line(tiny_engine: EngineFolder) -> None:
    done = CliRunner().invoke(command, [str(tiny_engine.folder), "--images", "4000"])
    assert "engine.max_batch" in str(done.exception)
