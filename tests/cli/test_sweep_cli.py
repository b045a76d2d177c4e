"""`coolsd-rt sweep`: what stands on stdout and stderr, exit codes, and Ctrl-C in the middle."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.install import install_line
from coolsd_rt.sweep import plot
from coolsd_rt.workflows import drawing
from tests.cli.conftest import Cli
from tests.sweep.sweeping import fake_engine, write_sweep


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(plot, "plots", lambda results: {})
    return fake_engine(tmp_path / "engine", monkeypatch)[0]


def test_a_table_and_a_line_a_point(cli: Cli, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_sweep(tmp_path / "sweep")
    monkeypatch.chdir(tmp_path)
    result = cli("sweep", engine, file)
    assert result.code == 0
    lines = result.err.splitlines()
    assert lines[0] == "sweep: 15 batches of 4 points"
    points = [line for line in lines[1:] if not line.startswith("sweep: ")]
    assert [line.split(": ")[0] for line in points] == [f"point {k} of 4" for k in (1, 2, 3, 4)]
    assert "cool-sd, delta 1.2: accept length " in points[2]
    assert "no benchmark" in result.out
    assert "figures and plots: out/sweep" in result.out
    rows = result.out.splitlines()[2:6]
    assert rows[0].startswith("plain ")
    assert "lossless" in rows[1]
    again = cli("sweep", engine, file)
    assert again.out == result.out
    assert sum(line.endswith("(already finished)") for line in again.err.splitlines()) == 4


def test_json_is_the_results_and_nothing_else(cli: Cli, engine: Path, tmp_path: Path) -> None:
    result = cli("sweep", engine, write_sweep(tmp_path / "sweep"), "--out", tmp_path / "out", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json == json.loads((tmp_path / "out" / "results.json").read_text())
    assert result.json["points"][0]["name"] == "plain"


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_is_one_line_and_finished_points_stay(
    cli: Cli, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    real, drawn = drawing.draw, 0

    def draw(*args: Any, **more: Any) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn == 3 + 3 + 2:  # in the second point
            raise KeyboardInterrupt
        return real(*args, **more)

    words = ["sweep", engine, write_sweep(tmp_path / "sweep"), "--out", tmp_path / "out"]
    words += ["--json"] if as_json else []
    with monkeypatch.context() as patch:
        patch.setattr(drawing, "draw", draw)
        result = cli(*words)
    said = f"interrupted: 1 of 4 points are in {tmp_path / 'out'}; run the same command to resume"
    assert result.code == 130
    assert result.err.splitlines()[-1] == said
    assert len(result.err.splitlines()) == (1 if as_json else 3)  # how many there are, and the first point
    if as_json:
        assert result.json["error"] == said
    assert len(list((tmp_path / "out" / "points").glob("*.json"))) == 1
    assert cli(*words).code == 0


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("images: 5", "picturs: 5"), "sweep.yaml:2: picturs: expected one of version, images"),
        (
            ("[1.2, 2]", "[1.2, x]"),
            'sweep.yaml:8: points.cool-sd.grid.schedule.delta[1]: expected a number from 0 to 1e6, found "x"',
        ),
        (("references: refs", "references: none"), "python tools/emoji_references.py"),
    ],
)
def test_mistakes_are_lines_with_exit_code_2(
    cli: Cli, engine: Path, tmp_path: Path, pairs: tuple[str, str], said: str
) -> None:
    result = cli("sweep", engine, write_sweep(tmp_path / "sweep", *pairs), "--out", tmp_path / "out")
    assert result.code == 2
    assert said in result.err
    assert all(line.startswith("error: ") for line in result.err.splitlines())
    assert not (tmp_path / "out").exists()


def test_no_engine_no_file_and_another_folder(cli: Cli, engine: Path, tmp_path: Path) -> None:
    file, out = write_sweep(tmp_path / "sweep"), tmp_path / "out"
    assert cli("sweep", tmp_path / "nothing", file).code == 2
    assert "expected a spec file, found no such file" in cli("sweep", engine, tmp_path / "none.yaml").err
    out.mkdir()
    (out / "photo.jpg").touch()
    result = cli("sweep", engine, file, "--out", out)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert "expected an empty folder, or a sweep of this engine by this file" in result.err


@pytest.mark.parametrize(("package", "extra"), [("torchmetrics", "quality"), ("transformers", "clip")])
def test_a_missing_package_names_its_extra(
    cli: Cli, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    (tmp_path / "sweep" / "clip").mkdir(parents=True)
    ask = {"torchmetrics": ("version", "version"), "transformers": ("quality:", "quality:\n  clip: {weights: clip}")}
    file = write_sweep(tmp_path / "sweep", *ask[package])
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real(name, *args, **kwargs)

    for module in ("frechet", "clip"):
        monkeypatch.delitem(sys.modules, f"coolsd_rt.metrics.{module}", raising=False)
        monkeypatch.delattr(f"coolsd_rt.metrics.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    result = cli("sweep", engine, file, "--out", tmp_path / "out")
    assert result.code == 2
    assert f"{package} is not installed" in result.err
    assert install_line(extra) in result.err
    assert not (tmp_path / "out").exists()
