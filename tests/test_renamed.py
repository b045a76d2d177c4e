"""What was renamed answers with its new name, in one line and with exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coolsd_rt.cli.main import run
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.metrics.references import read_folder
from coolsd_rt.renamed import KEYS, new_name, old_name
from coolsd_rt.spec import SpecError
from coolsd_rt.sweep.results import read_point
from coolsd_rt.sweep.spec import load_sweep

SWEEP = "version: 1\n{key}: 4\nprompts: p.txt\npoints: {{a: {{}}}}\n"


def test_a_name_is_told_only_where_it_is_welcome() -> None:
    assert new_name("pictures", ["seed", "images"]) == "images"
    assert old_name("images", {"pictures": 1}) == "pictures"
    assert not any((new_name("pictures", ["seed"]), new_name("seed", ["images"]), new_name(3, ["images"])))
    assert not any((old_name("images", {"image": 1}), old_name("seed", {"pictures": 1})))
    assert not set(KEYS) & set(KEYS.values()), "a new name is no old one"


def test_a_sweep_of_before_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.format(key="pictures"))
    with pytest.raises(SpecError) as caught:
        load_sweep(path)
    (problem,) = caught.value.problems
    assert problem.exit_code == 2
    assert str(problem) == f"{path}:2: pictures: expected images, found pictures; the key was renamed: write 'images'"
    path.write_text(path.read_text().replace("pictures", "images"))
    assert load_sweep(path).spec.images == 4


def test_so_is_a_key_in_a_section_of_it(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.format(key="images") + "quality:\n  frechet: {pictures: 8}\n")
    with pytest.raises(SpecError) as caught:
        load_sweep(path)
    (problem,) = caught.value.problems
    assert f"{path}:6: quality.frechet.pictures: expected images" in str(problem)


def test_the_verb_says_it_and_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.format(key="pictures"))
    assert run(["sweep", str(tmp_path / "engine"), str(path)]) == 2
    assert "write 'images'" in capsys.readouterr().err


def test_an_index_of_reference_images_of_before_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "references.json").write_text(json.dumps({"pictures": [{"file": "a.png", "caption": "a"}]}))
    with pytest.raises(UserError) as caught:
        read_folder(tmp_path)
    assert "references.json: pictures: expected the key's new name, images, found pictures" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_so_is_a_kept_point_of_a_sweep(tmp_path: Path) -> None:
    path = tmp_path / "000-a.json"
    path.write_text(
        json.dumps(
            {
                "name": "a",
                "series": "a",
                "axes": {},
                "plain": True,
                "lossless": True,
                "omegas": [],
                "rule": "ratio",
                "resampler": "optimal",
                "pictures": 4,
            }
        )
    )
    with pytest.raises(CoolsdError, match="the key's new name, images"):
        read_point(path)


def test_a_key_that_was_never_there_is_still_unknown(tmp_path: Path) -> None:
    (tmp_path / "references.json").write_text(json.dumps({"images": [], "picture": 1}))
    with pytest.raises(UserError) as caught:
        read_folder(tmp_path)
    assert "new name" not in str(caught.value)


def test_a_module_that_became_a_verb_does_not_do_nothing_in_silence() -> None:
    command = [sys.executable, "-m", "coolsd_rt.workflows.precompute", "spec.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "coolsd-rt precompute" in done.stderr
