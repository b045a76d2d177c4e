"""`coolsd-rt schedule`: the law's numbers, and what it refuses."""

from __future__ import annotations

import json

import pytest

from coolsd_rt.cli.main import run
from coolsd_rt.cli.schedule import _TAKES
from coolsd_rt.law import SCHEDULES, make_omegas


def test_the_paper_s_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schedule", "--delta", "1.1", "--nu", "0.7", "--length", "5", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [round(w, 3) for w in document["omegas"]] == [2.855, 1.418, 0.704, 0.350, 0.174]
    assert document["mean"] == pytest.approx(1.1)


def test_each_family_and_the_floor(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(_TAKES) == set(SCHEDULES)
    for words, omegas in (
        (["excess", "--beta", "0.5", "--nu", "0.2"], make_omegas("excess", 5, beta=0.5, nu=0.2)),
        (["linear", "--delta", "1.5", "--floor", "1"], make_omegas("linear", 5, delta=1.5, floor=1.0)),
        (["custom", "--values", "1.2,1.1, 1,1,1"], (1.2, 1.1, 1.0, 1.0, 1.0)),
        (["custom", "--values", "3,2"], (3.0, 2.0)),
        (["none"], (1.0,) * 5),
    ):
        assert run(["schedule", "--json", "--kind", *words]) == 0
        assert json.loads(capsys.readouterr().out)["omegas"] == pytest.approx(list(omegas))


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schedule", "--delta", "1.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["position", "omega"]
    assert lines[1].split() == ["1", "2.85499"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kind", "uniform", "--delta", "1", "--nu", "2"], "expected --delta, found --nu"),
        (["--kind", "none", "--delta", "1"], "found --delta"),
        ([], "expected --delta, found nothing"),
        (["--kind", "custom", "--values", "1,x"], "expected numbers"),
        (["--delta", "1.1", "--length", "100000000"], "--length: expected a whole number from 1 to 65536"),
        (["--delta", "1.1", "--length", "0"], "--length: expected a whole number from 1 to 65536"),
        (["--kind", "custom", "--values", "1,,2"], "expected numbers"),
        (["--kind", "custom", "--values", "1,1", "--length", "5"], "expected 5 values"),
        (["--delta", "-1"], "--delta: expected a number from 0 to 1e6, found -1"),
        (["--delta", "nan"], "delta"),
        (["--delta", "1", "--length", "-1"], "--length: expected a whole number from 1 to 65536"),
        (["--kind", "cosine"], "cosine"),
    ],
)
def test_what_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schedule", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1
