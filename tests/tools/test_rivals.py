"""The comparison with other methods: its tiny laws, laws of a wanted accept length, and the page that it makes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coolsd_rt.law import Law
from coolsd_rt.law.comparison import Chain, distance
from tools.paper.matching import Peers, match, shapes, solve
from tools.paper.rivals import ENTRIES, answer
from tools.paper.rivals_page import page_of, rules, trees
from tools.paper.tiny_worlds import LENGTH, make_world, worlds

ROOT = Path(__file__).resolve().parents[2]
WORLD = make_world(3, 1.0, 0.3, 0)
PUBLISHED = json.loads((ROOT / "docs/rivals/rivals.json").read_text(encoding="utf-8"))


def test_a_world_has_the_wanted_distance_and_follows_from_its_seed() -> None:
    p, q = (np.concatenate(tables) for tables in (WORLD.targets, WORLD.drafts))
    assert 0.5 * np.abs(p - q).sum(-1).mean() == pytest.approx(0.3, abs=1e-9)
    again = make_world(3, 1.0, 0.3, 0)
    np.testing.assert_array_equal(WORLD.draft((2, 1)), again.draft((2, 1)))
    np.testing.assert_array_equal(WORLD.target((2, 1)), WORLD.targets[2][7])
    assert len({world.name for world in worlds()}) == len(list(worlds())) == len(PUBLISHED["worlds"])


@pytest.mark.parametrize("peers", [Peers(), Peers((2, 1, 1))])
def test_laws_of_a_wanted_accept_length_have_it(peers: Peers) -> None:
    lossless = peers.accept_length(WORLD, (1.0,) * LENGTH)
    for shape in ((1.0, 1.0, 1.0), (0.5, 0.5, 0.0)):
        omegas = solve(WORLD, peers, shape, lossless + 0.1)
        assert omegas is not None
        found = distance(peers.rule(omegas), WORLD.target, WORLD.draft)
        assert found.accept_length == pytest.approx(lossless + 0.1, abs=1e-6)
        assert found.tv > 0.01
        assert solve(WORLD, peers, shape, lossless - 0.1) == (1.0,) * LENGTH


def test_the_best_shape_is_no_worse_than_uniform_and_some_lengths_cannot_be_had() -> None:
    found = match(WORLD, Peers(), 3.2, LENGTH)
    assert found.best.tv <= found.uniform.tv
    assert found.best.accept_length == pytest.approx(3.2, abs=1e-6)
    assert solve(WORLD, Peers(), (0.0, 0.0, 1.0), 3.9) is None
    grid = list(shapes(3, 4))
    assert len(grid) == len(set(grid)) == 16
    assert all(sum(shape) == 1 for shape in grid[1:])


def test_the_figures_are_those_of_the_laws() -> None:
    entries = [entry for entry in ENTRIES if (entry.method, entry.rule) == ("COOL-SD", "uniform 1.2")]
    (line,) = answer(entries, [WORLD])["lines"]
    found = distance(Chain(Law((1.2,) * LENGTH)), WORLD.target, WORLD.draft)
    assert line["tv"] == {"mean": found.tv, "worst": found.tv}
    assert line["kl_of_target"]["mean"] == found.kl_of_target
    assert line["matched"]["uniform"]["tv"]["mean"] == pytest.approx(found.tv, abs=1e-6)
    assert not line["lossless"]


def test_the_page_has_the_published_figures() -> None:
    page = (ROOT / "docs/rivals.md").read_text(encoding="utf-8")
    for table in (rules(PUBLISHED), trees(PUBLISHED)):
        assert "\n".join(table) in page
    claimed = {line["method"] for line in PUBLISHED["lines"] if line["claim"] == "lossless" and not line["lossless"]}
    assert claimed == {"longest-path"}
    assert [(line["method"], line["rule"]) for line in PUBLISHED["lines"]] == [(e.method, e.rule) for e in ENTRIES]


def test_the_published_figures_are_todays() -> None:
    """The first line on all of the laws: the quick part of the table."""
    entries = [entry for entry in ENTRIES if entry.method == "COOL-SD" and entry.peers is None]
    today = answer(entries)["lines"]
    assert today[0]["accept_length"]["mean"] == pytest.approx(PUBLISHED["lines"][0]["accept_length"]["mean"], abs=1e-9)
    assert "trees" not in answer(entries, [WORLD])
    assert page_of({**PUBLISHED, "lines": today}).startswith("| method |")


def test_the_command_keeps_files_and_knows_its_methods(tmp_path: Path) -> None:
    (tmp_path / "rivals.md").write_text("mine", encoding="utf-8")
    for options, said in (
        (["--out", str(tmp_path)], "--overwrite"),
        (["--method", "gone"], "longest-path"),
    ):
        command = [sys.executable, "-m", "tools.paper.rivals", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "rivals.md").read_text(encoding="utf-8") == "mine"
