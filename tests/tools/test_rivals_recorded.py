"""Rules of other methods on recorded rounds: the enumeration's figures, when every window is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt.law import Law, exact
from coolsd_rt.law.comparison import RoundRule, distance
from coolsd_rt.law.position import position_law
from coolsd_rt.law.rivals import Grouped, RelaxedArgmax, SkippedVerification
from coolsd_rt.law.traces import by_row, outlook
from coolsd_rt.store import EngineFolder
from tests.law.test_traces import LENGTH, NEAR, TABLES, every_window
from tests.runtime.fakes import Tables
from tools.paper import rivals_recorded
from tools.paper.rivals_recorded import answer, bounded, matched, rules, show_bounded, supported

ONES = (1.0,) * LENGTH
RULES: list[Any] = [
    Grouped(LENGTH, 1),
    Grouped(LENGTH, 2, 0.3),
    SkippedVerification(LENGTH, 1),
    SkippedVerification(LENGTH, 2),
    RelaxedArgmax(LENGTH, 0.2, 2),
    RelaxedArgmax(LENGTH, 0.2, 3, "target"),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("zeros", [False, True])
def test_a_rule_is_its_enumeration(rule: RoundRule, zeros: bool) -> None:
    tables = Tables.random(4, LENGTH + 2, seed=12, zeros=True) if zeros else TABLES
    found = outlook(every_window(tables), by_row(rule.judge))  # type: ignore[attr-defined]
    wanted = distance(rule, tables.p, tables.q)
    assert found.accept_length == pytest.approx(wanted.accept_length, abs=1e-12)
    assert found.tv_round == pytest.approx(wanted.tv, abs=1e-12)
    assert found.kl == pytest.approx(wanted.kl, abs=1e-12)


def test_a_law_by_row_is_the_law() -> None:
    law = Law((1.4, 1.2, 1.0))
    assert outlook(every_window(), by_row(lambda p, q, i: position_law(p, q, law, i))) == outlook(every_window(), law)


def test_codes_without_weight_change_nothing() -> None:
    windows = every_window(Tables.random(4, LENGTH + 2, seed=12, zeros=True))
    few, law = supported(windows), Law((1.5, 1.2, 1.0))
    assert few.target.shape[-1] <= 4
    assert np.allclose([*few.target.sum(-1).ravel()], 1)
    a, b = outlook(windows, law), outlook(few, law)
    assert (a.accept_length, a.kl, a.tv_round) == pytest.approx((b.accept_length, b.kl, b.tv_round), abs=1e-12)


def test_the_uniform_omega_of_an_accept_length() -> None:
    windows = every_window()
    law = Law((1.7,) * LENGTH)
    found = matched(windows, outlook(windows, law).accept_length)
    assert found is not None
    assert found[0] == pytest.approx(1.7, abs=1e-4)
    assert matched(windows, LENGTH + 1.0) is None
    lossless = exact.accept_length(TABLES.p, TABLES.q, Law(ONES))
    at = matched(windows, lossless)
    assert at is not None
    assert at[0] == 1
    assert matched(windows, lossless - 0.1) is None


def test_the_uniform_omega_of_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    windows = every_window()
    wanted = outlook(windows, Law((1.4,) * LENGTH)).tv_bound_per_token
    found = bounded(windows, wanted)
    assert found is not None
    assert found[0] == pytest.approx(1.4, abs=1e-4)
    assert bounded(windows, 0.9) is None
    show_bounded(windows, 0.9)
    show_bounded(windows, wanted)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("no omega: the largest bound is 0.")
    assert said[1].startswith("uniform omega 1.400: ")


def test_every_rule_is_answered_with_and_without_neighbours() -> None:
    wide = np.concatenate([NEAR, np.zeros((4, 15), np.int64)], axis=1)
    names = {method for method, _ in rules(LENGTH, wide)}
    assert names == {"COOL-SD", "LANTERN", "LANTERN++", "GSD", "VVS", "relaxed-argmax"}
    lines = answer(every_window(), None, lambda said: None)
    assert {line.method for line in lines} == names - {"LANTERN", "LANTERN++"}
    assert lines[0].omega == 1
    assert lines[0].tv == pytest.approx(0, abs=1e-12)
    assert lines[0].uniform_tv == pytest.approx(0, abs=1e-12)
    assert all(line.tv > 1e-3 for line in lines[1:] if "radius 7" not in line.rule)  # wider than four codes: lossless


def test_the_command_on_an_engine(
    tiny_engine: EngineFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "recorded.json"
    words = [str(tiny_engine.folder), "-n", "2", "--out", str(out)]
    rivals_recorded.command.main(words, standalone_mode=False)
    document = json.loads(out.read_text())
    assert document["images"] == 2
    assert document["rounds"] > 2
    assert {line["method"] for line in document["lines"]} >= {"COOL-SD", "GSD", "VVS"}
    assert "tokens a round" in capsys.readouterr().out
