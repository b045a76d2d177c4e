"""The rows of the benchmark, and that a failure is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coolsd_rt.workflows import drawing
from tests.workflows.test_drawing import spec
from tools.demo import benchmark as demo
from tools.demo.report import JACOBI, JACOBI_LOSSLESS, LOSSLESS, RELAXED, STRONGER


def test_rows_keep_the_specs_schedule_at_each_delta() -> None:
    mine = spec(schedule={"kind": "linear", "delta": 1.5, "floor": None})
    laws = {name: drawing.settings_of(s).law.omegas for name, s in demo.laws(mine).items()}
    assert laws[LOSSLESS] == (1.0, 1.0, 1.0)
    assert (laws[JACOBI_LOSSLESS], laws[JACOBI]) == (laws[LOSSLESS], laws[RELAXED])
    assert drawing.settings_of(demo.laws(mine)[JACOBI]).drafter == "jacobi"
    assert sum(laws[RELAXED]) / 3 == pytest.approx(1.1)
    assert sum(laws[STRONGER]) / 3 == pytest.approx(2.0)
    assert laws[RELAXED][0] - laws[RELAXED][1] == pytest.approx(laws[RELAXED][1] - laws[RELAXED][2])


def test_a_spec_without_a_delta_gets_the_papers_schedule() -> None:
    laws = demo.laws(spec(schedule={"kind": "none"}))
    assert laws[RELAXED].schedule.kind == "exponential"
    assert drawing.settings_of(laws[STRONGER]).law.omegas[0] > 2


def test_a_failure_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([str(tmp_path / "none")], [str(tmp_path), "--runs", "x"], []):
        monkeypatch.setattr(sys, "argv", ["demo", *words])
        with pytest.raises(SystemExit) as stopped:
            demo.main()
        assert stopped.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert err.startswith("error: ")
