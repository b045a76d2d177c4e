"""Drafts of falling quality, and the figures of the open questions, on an engine without a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from coolsd_rt.law import Law
from coolsd_rt.law.traces import outlook
from coolsd_rt.schedules.recording import Recording
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows import drawing
from tests.workflows.fakes import VOCABULARY, FakeEngine
from tools.paper import questions
from tools.paper.across import Wanted, cut, noises
from tools.paper.noisy_draft import NoisyTarget
from tools.paper.plot import plots
from tools.paper.questions import Bench, answer, by_ambiguity, by_length

JOBS = drawing.plan(["red apple", "yellow star"], 24, 0, VOCABULARY)


@pytest.fixture
def bench(tiny_spec: Path) -> Bench:
    return Bench(FakeEngine(), VOCABULARY, load_spec(tiny_spec).spec, [list(b) for b in drawing.batches(JOBS, 12)])


def tv(bench: Bench, noise: float) -> float:
    w = bench.record(3, NoisyTarget(bench.engine, noise), drafter="model").windows
    return float(0.5 * np.abs(w.target[:, 0] - w.draft[:, 0]).sum(-1).mean())


def test_noise_makes_a_draft_worse_and_none_makes_it_the_target(bench: Bench) -> None:
    found = [tv(bench, noise) for noise in (0.0, 0.5, 1.0, 3.0)]
    assert found[0] < 1e-6
    assert found == sorted(found)
    assert found[-1] > 0.5
    recording = bench.record(3, NoisyTarget(bench.engine, 0.0), drafter="model")
    assert (recording.accepted == recording.windows.num_drafts).all()


def test_a_noisy_draft_is_still_lossless(bench: Bench) -> None:
    """P where a round starts does not depend on the draft: with the same seeds the first rounds see the same P."""
    a, b = (bench.record(3, NoisyTarget(bench.engine, noise), drafter="model") for noise in (0.0, 2.0))
    first = [r.windows.target[r.position == 1][:, 0] for r in (a, b)]
    np.testing.assert_allclose(first[0], first[1], atol=1e-6)
    assert outlook(b.windows, Law((1.0,) * 3)).kl == pytest.approx(0, abs=1e-6)


def test_shorter_windows_of_the_same_rounds(bench: Bench) -> None:
    windows = bench.record(4).windows
    short = cut(windows, 2)
    assert short.length == 2
    assert (short.num_drafts <= 2).all()
    whole, part = (outlook(w, Law((1.0,) * w.length)) for w in (windows, short))
    assert part.acceptance == pytest.approx(whole.acceptance[:2])
    assert part.accept_length < whole.accept_length


def test_the_best_of_each_length(bench: Bench) -> None:
    rows = by_length(bench.record(3).windows, budget=0.05)
    assert [row["length"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert len(row["optimum"]) == row["length"]
        assert min(row["accept_length"].values()) > row["lossless"] - 0.2
    assert rows[2]["lossless"] > rows[0]["lossless"]


def test_ambiguity_bins_are_a_plain_loops(bench: Bench) -> None:
    recording = bench.record(3)
    rows = by_ambiguity(recording, bins=4)
    entropies = [row["entropy"] for row in rows]
    assert entropies == sorted(entropies)
    total = sum(row["positions"] for row in rows)
    rejected = sum(row["rejected"] * row["positions"] for row in rows)
    w = recording.windows
    assert total == int(np.minimum(w.num_drafts, recording.accepted + 1).sum())
    assert rejected == pytest.approx(int((recording.accepted < w.num_drafts).sum()))


def test_all_answers_and_their_plots(bench: Bench) -> None:
    said: list[str] = []
    found = answer(bench, said.append, lengths=(1, 2), noises=(0.5, 1.5))
    assert found["images"] == len(JOBS)
    assert json.loads(json.dumps(found))["by_distance"][0]["tv"] < found["by_distance"][1]["tv"]
    assert len(said) == 3
    for data in plots(found).values():
        assert data.startswith(b"<?xml")
        assert plots(found)["length.svg"] == plots(found)["length.svg"]


def test_the_command(tiny_engine: EngineFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "answer", lambda bench, say: {"images": len(bench.batches)})
    monkeypatch.setattr("tools.paper.plot.plots", lambda found: {"length.svg": b"<?xml"})
    questions.command.main([str(tiny_engine.folder), "-n", "2", "--out", str(tmp_path / "out")], standalone_mode=False)
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["length.svg", "questions.json"]


def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["questions", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit) as stopped:
        questions.main()
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_noise_that_several_distances_share_is_there_once(bench: Bench) -> None:
    """No pilot comes as far as the last two: both would be recorded with the last noise."""

    def record(noise: float, length: int, *, few: bool = False) -> Recording:
        return bench.record(length, NoisyTarget(bench.engine, noise), drafter="model")

    found = noises(record, Wanted(lengths=(2,), distances=(0.05, 0.98, 0.99), pilots=(0.5, 1.0)))
    assert len(found) == 2
    assert found[0] < found[1] == 1.0
