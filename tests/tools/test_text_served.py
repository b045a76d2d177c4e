"""Drawing texts under laws on a tiny engine, stopping, continuing, and the comparison of what was drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows.opened import OpenedEngine
from tools.text import served, served_report
from tools.text.served_laws import BASE, LAWS, settings_of
from tools.text.served_texts import FIELDS, ServedFolder, unpacked

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ["red apple", "an image of the blue star", "star", "blue red of"]
OWN = "lantern++, factor 2"
FEW = [BASE, "uniform, delta 2", OWN]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    rows = [{"question_id": 81 + i, "category": "writing", "turns": [p, "more"]} for i, p in enumerate(PROMPTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def words(text_engine: EngineFolder, questions: Path, out: Path, *more: str, laws: list[str] = FEW) -> list[str]:
    names = [word for law in laws for word in ("--laws", law)]
    start = [str(text_engine.folder), str(questions), "--out", str(out)]
    return [*start, "--batch", "3", "--max-tokens", "12", *names, *more]


def draw(text_engine: EngineFolder, questions: Path, out: Path, *more: str, laws: list[str] = FEW) -> Any:
    return CliRunner().invoke(served.main, words(text_engine, questions, out, *more, laws=laws))


@pytest.fixture(scope="module")
def whole(text_engine: EngineFolder, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samples of every law. Read only."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = draw(text_engine, questions, out, "--samples", "2", laws=[])
    assert done.exit_code == 0, done.output
    return out


def contents(folder: Path, laws: list[str]) -> dict[str, bytes]:
    names = [LAWS[name].folder for name in laws]
    return {f"{name}/{p.name}": p.read_bytes() for name in names for p in sorted((folder / name).iterdir())}


def test_every_law_is_drawn_and_paired(whole: Path) -> None:
    folder = ServedFolder.at(whole)
    assert [law.name for law in folder.laws()] == list(LAWS)
    assert {folder.complete(law) for law in folder.laws()} == {2}
    read = {law.name: folder.read(law, 2) for law in folder.laws()}
    for arrays in read.values():
        assert set(arrays) == {*FIELDS, "sample"}
        assert arrays["question"].tolist() == [0, 1, 2, 3] * 2
        assert arrays["sample"].tolist() == [0] * 4 + [1] * 4
        assert (arrays["ids"][:, 0] == read[BASE]["ids"][:, 0]).all()  # the first token is P's, with the same seed
        lengths = arrays["length"]
        assert ((arrays["ids"] >= 0).sum(axis=1) == lengths).all()
        assert (arrays["ended"] | (lengths == 12)).all()
        assert np.isfinite(arrays["log_likelihood"]).all()
        assert (arrays["rounds"] <= lengths - 1).all()
    assert np.abs(read[BASE]["kl_revealed"]).max() < 1e-4
    for name in ("uniform, delta 2", OWN):
        assert read[name]["kl_revealed"].sum() > 1e-2
        assert (read[name]["kl_revealed"] >= read[name]["kl"] - 1e-6).all()
    assert {bool(x) for arrays in read.values() for x in arrays["ended"]} == {True, False}


def test_texts_are_those_of_generate(whole: Path, text_engine: EngineFolder) -> None:
    """The ordinary path: the same engine, seed and settings."""
    from coolsd_rt.workflows.drawing import Job
    from coolsd_rt.workflows.texts import TextAsk, TextsDrawing, encode

    opened, law = OpenedEngine.at(text_engine.folder), LAWS["uniform, delta 2"]
    arrays = ServedFolder.at(whole).read(law, 2)
    for at, (sample, k) in enumerate((s, k) for s in range(2) for k in range(4)):
        job = Job(0, PROMPTS[k], sample * 4 + k, encode(opened, PROMPTS[k], TextAsk()))
        (text,) = TextsDrawing(opened, [job], settings_of(opened, law, 12)).run()
        assert tuple(arrays["ids"][at, : arrays["length"][at]].tolist()) == text.ids
        assert unpacked(arrays["text"])[at] == text.text
        assert arrays["rounds"][at] == text.rounds
        assert bool(arrays["ended"][at]) == (text.reason == "stop")


def test_stopped_and_continued_gives_the_same_files(
    whole: Path, text_engine: EngineFolder, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, calls = tmp_path / "out", served.ServedDrawing._draw, 0

    def stopped(self: Any, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(served.ServedDrawing, "_draw", stopped)
        assert draw(text_engine, questions, out, "--samples", "2").exit_code != 0
    there = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.npz"))
    assert there == ["lossless/00000.npz", "lossless/00001.npz", "uniform-delta-2/00000.npz"]  # sample 0 comes first
    assert not [p for p in out.rglob("*") if p.is_file() and p.suffix not in (".npz", ".json")]
    again = draw(text_engine, questions, out, "--samples", "2")
    assert again.exit_code == 0, again.output
    assert "3 of 12 batches are there" in again.output
    assert contents(out, FEW) == contents(whole, FEW)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--max-tokens", "11"], "max_tokens (12 there, 11 here)"),
        (["--seed", "5"], "seed (0 there, 5 here)"),
        (["--batch", "2"], "batches"),
    ],
)
def test_other_settings_are_refused(
    change: list[str], said: str, whole: Path, text_engine: EngineFolder, questions: Path
) -> None:
    before = {str(p): p.stat().st_mtime_ns for p in whole.rglob("*")}
    command = [sys.executable, "-m", "tools.text.served", *words(text_engine, questions, whole, *change)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert {str(p): p.stat().st_mtime_ns for p in whole.rglob("*")} == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found none"),
        ("{\n", "line 1: expected a JSON object with question_id"),
        ('{"question_id": "a", "category": "b", "turns": ["c"]}\n', "line 1"),
        ('{"question_id": 1, "category": "b", "turns": []}\n', "line 1"),
        ('{"question_id": 1, "category": "b", "turns": ["c"]}\n' * 2, "found one twice"),
    ],
)
def test_files_without_questions_are_refused(text: str, said: str, text_engine: EngineFolder, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(text)
    done = draw(text_engine, tmp_path / "q.jsonl", tmp_path / "out")
    assert done.exit_code != 0
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_an_unknown_law_is_refused(text_engine: EngineFolder, questions: Path, tmp_path: Path) -> None:
    done = draw(text_engine, questions, tmp_path / "out", laws=["greedy"])
    assert "--laws: expected one of: lossless; cool-sd, delta 1.1;" in str(done.exception)


def report(folder: Path, *more: str) -> Any:
    return CliRunner().invoke(served_report.main, [str(folder), "--draws", "200", *more])


def test_the_report_is_of_the_texts(whole: Path, tmp_path: Path) -> None:
    images = ROOT / "docs/questions/questions.json"
    done = report(whole, "--out", str(tmp_path), "--images", str(images))
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "served.json").read_text())
    assert (tmp_path / "served.svg").read_bytes().startswith(b"<?xml")
    assert (found["samples"], found["questions"], found["checkable"]) == (2, 4, 0)
    assert set(found["figures"]) == set(served_report.LABELS) - {"right"}  # none of these questions has an answer
    folder = ServedFolder.at(whole)
    for law in folder.laws():
        arrays = folder.read(law, 2)
        rows = {name: of[law.name] for name, of in found["figures"].items()}
        later = arrays["length"].sum() - 8
        assert rows["accept_length"]["value"]["value"] == pytest.approx(later / arrays["rounds"].sum())
        assert rows["kl_revealed"]["value"]["value"] == pytest.approx(arrays["kl_revealed"].sum() / later)
        assert rows["length"]["value"]["value"] == pytest.approx(arrays["length"].mean())
        assert (rows["length"]["difference"] is None) == (law.name == BASE)
        positions = [row["positions"] for row in found["by_ambiguity"][law.name]]
        assert sum(positions) == arrays["bins"][..., 0].sum()
    row = found["figures"]["kl_revealed"][OWN]
    assert row["smallest"]["smallest"] == pytest.approx(3.2415 * row["difference"]["error"], rel=1e-3)
    assert row["smallest"]["smallest_holm"] > row["smallest"]["smallest"]
    assert found["images"][0]["positions"] == 651
    assert "2 samples of 4 questions a law, 0 with an answer" in done.output


def test_only_samples_that_all_laws_have_count(whole: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(whole, tmp_path / "out")
    (tmp_path / "out" / LAWS[OWN].folder / "00003.npz").unlink()
    done = report(tmp_path / "out", "--out", str(tmp_path / "found"))
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "found/served.json").read_text())
    assert (found["samples"], found["complete"][OWN], found["complete"][BASE]) == (1, 1, 2)


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    assert "texts of tools.text.served" in str(report(tmp_path).exception)
