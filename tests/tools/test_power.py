"""The command that compares a sweep's laws: on a sweep of a fake engine, its figures are the sweep's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.sweep.results import PointResult
from coolsd_rt.sweep.run import SweepConfig, sweep
from tests.sweep.sweeping import fake_engine, write_sweep
from tools.paper import power
from tools.paper.power_plot import plots
from tools.paper.power_report import page_of

ROOT = Path(__file__).resolve().parents[2]
STRONG = "cool-sd, delta 2"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep's files and its results in `out`. Read only."""
    folder = tmp_path_factory.mktemp("power")
    with pytest.MonkeyPatch.context() as patch:
        engine, _ = fake_engine(folder / "engine", patch)
        sweep(SweepConfig(engine, write_sweep(folder / "sweep"), folder / "out"))
    return folder


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(drawn: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """run(folder, ...words): exit code, stdout and stderr of the command with the sweep's own files."""

    def call(folder: Path, *words: object, references: Path | None = drawn / "sweep/refs") -> tuple[int, str, str]:
        given = [folder, "--network", drawn / "sweep/features.safetensors", "--draws", 100, *words]
        given += ["--references", references] if references else []
        monkeypatch.setattr(sys, "argv", ["power", *map(str, given)])
        code: Any = 0
        try:
            power.main()
        except SystemExit as stopped:
            code = stopped.code
        said = capfd.readouterr()
        return code or 0, said.out, said.err

    return call


def snapshot(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_the_figures_are_the_sweeps_and_nothing_is_written_into_it(drawn: Path, tmp_path: Path, run: Run) -> None:
    before = snapshot(drawn)
    code, out, err = run(drawn / "out", "--json", "--out", tmp_path / "compared")
    assert code == 0, err
    report = json.loads(out)
    assert snapshot(drawn) == before
    files = {path.suffix: path for path in (tmp_path / "compared").iterdir()}
    assert set(files) == {".json", ".txt", ".png", ".svg"}
    assert json.loads(files[".json"].read_text()) == report
    assert files[".txt"].read_text(encoding="utf-8").splitlines() == list(page_of(report))
    assert files[".svg"].read_bytes() == plots(report)["svg"]
    assert files[".png"].read_bytes().startswith(b"\x89PNG")
    assert (report["base"], report["images"], report["references"]) == ("lossless", 5, 5)
    for path in (drawn / "out/points").glob("*.json"):
        point = PointResult.model_validate_json(path.read_bytes())
        rows = {figure: found[point.name] for figure, found in report["figures"].items()}
        assert rows["accept_length"]["value"]["value"] == pytest.approx(point.mean_acceptance_length.value)
        assert rows["retrieval"]["value"]["value"] == pytest.approx(point.quality["retrieval"].value)
        distance = rows["frechet"]["value"]
        assert distance["value"] + distance["bias"] == pytest.approx(point.quality["frechet"].value, abs=1e-6)
        assert (rows["frechet"]["difference"] is None) == (point.name == "lossless")


def test_an_unfinished_sweep_is_refused_with_the_points_that_lack(drawn: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(drawn / "out", tmp_path / "out")
    (tmp_path / "out/points/003-cool-sd-delta-2.json").unlink()
    command = [sys.executable, "-m", "tools.paper.power", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert f"1 of 4 points that lack: {STRONG}" in done.stderr
    assert "--finished-only" in done.stderr
    code, out, err = run(tmp_path / "out", "--finished-only", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["lacking"] == [STRONG]
    assert set(report["figures"]["retrieval"]) == {"plain", "lossless", "cool-sd, delta 1.2"}
    (tmp_path / "out/points/001-lossless.json").unlink()
    code, out, err = run(tmp_path / "out", "--finished-only")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: --base: expected a finished point of the series lossless")


def test_a_plan_says_the_smallest_difference_of_each_figure(drawn: Path, tmp_path: Path, run: Run) -> None:
    code, out, err = run(drawn / "out", "--plan", 2048, "--base", STRONG, "--comparisons", 8, "--out", tmp_path)
    assert code == 0, err
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (plan["images"], plan["comparisons"], plan["base"]) == (2048, 8, STRONG)
    assert set(plan["largest"]) == {"accept_length", "retrieval", "frechet"}
    assert 0 < plan["largest"]["accept_length"]["smallest"] < plan["largest"]["accept_length"]["smallest_holm"]
    assert out == (tmp_path / "plan.txt").read_text(encoding="utf-8")
    code, out, err = run(drawn / "out", "--plan", 2048, "--out", tmp_path)
    assert (code, out) == (2, "")
    assert "--overwrite" in err


@pytest.mark.parametrize(("what", "said"), [
    ("no sweep", "sweep.json"),
    ("no references", "--references: expected the folder of the retrieval's references, found nothing"),
    ("other references", "--references: expected the files that the sweep measured with, found others"),
    ("another network", "the feature network: expected the files that the sweep measured with, found others"),
    ("a batch that lacks", "expected every batch of images, found one that lacks"),
])  # fmt: skip
def test_bad_input_is_one_line(what: str, said: str, drawn: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(drawn / "out", tmp_path / "out")
    shutil.copytree(drawn / "sweep/refs", tmp_path / "refs")
    references: Path | None = drawn / "sweep/refs"
    code_expected = 2
    if what == "no sweep":
        (tmp_path / "out/sweep.json").unlink()
    elif what == "no references":
        references = None
    elif what == "other references":
        shutil.copy(tmp_path / "refs/red-apple.png", tmp_path / "refs/blue-apple.png")
        references = tmp_path / "refs"
    elif what == "another network":
        head = json.loads((tmp_path / "out/sweep.json").read_text())
        head["quality"]["frechet"]["network"] = "0" * 64
        (tmp_path / "out/sweep.json").write_text(json.dumps(head))
    else:
        (tmp_path / "out/points/002-cool-sd-delta-1-2/00001.npz").unlink()
        code_expected = 1
    code, out, err = run(tmp_path / "out", references=references)
    assert (code, out) == (code_expected, "")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
