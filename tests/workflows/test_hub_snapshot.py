"""A spec and an engine in a Hugging Face cache do what copies of them do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from coolsd_rt.cli.main import run
from coolsd_rt.store import EngineFolder, open_engine
from tests.hub import as_snapshot


@pytest.fixture
def spec(tiny_spec: Path, tmp_path: Path) -> Path:
    return as_snapshot(tiny_spec.parent, tmp_path / "models--org--spec") / tiny_spec.name


def test_a_spec_is_valid_and_builds_the_same_engine(
    spec: Path, tiny_engine: EngineFolder, tiny_out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["validate", str(spec)]) == 0
    # Into the folder of the other build, whose stages are found: their keys are hashes of the same contents.
    assert run(["build", str(spec), "--out", str(tiny_out), "--dry-run", "--json"]) == 0
    planned = json.loads(capfd.readouterr().out.partition("\n")[2])
    assert all(stage["cached"] for stage in planned["stages"])
    assert run(["inspect", str(tiny_engine.folder), "--spec", str(spec), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["stale"] is False


def test_a_spec_whose_blob_is_not_what_its_name_says(spec: Path, capfd: pytest.CaptureFixture[str]) -> None:
    link = spec.parent / "target.safetensors"
    blob = link.parent / os.readlink(link)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    for verb in (["validate", str(spec)], ["build", str(spec), "--out", str(spec.parents[3] / "engines")]):
        assert run(verb) == 2
        assert "expected content with the SHA-256 in the file's name" in capfd.readouterr().err


def test_another_link_names_the_way_out(spec: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    link = spec.parent / "target.safetensors"
    (tmp_path / "copy").write_bytes(link.read_bytes())
    link.unlink()
    link.symlink_to(tmp_path / "copy")
    assert run(["validate", str(spec)]) == 2
    err = capfd.readouterr().err
    assert "target.weights: expected a file inside" in err
    assert "a link to another location; copy the files themselves: cp -rL FOLDER COPY" in err


def test_an_engine_draws_the_same_images(
    tiny_engine: EngineFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    snapshot = as_snapshot(tiny_engine.folder.parent, tmp_path / "models--org--engine")
    images = []
    for k, engine in enumerate((tiny_engine.folder, open_engine(snapshot / tiny_engine.folder.name).folder)):
        out = tmp_path / f"out-{k}"
        assert run(["generate", str(engine), "-p", "red apple", "--out", str(out), "--json"]) == 0
        images.append([path.read_bytes() for path in sorted(out.glob("*.png"))])
    assert images[0] == images[1] != []
    assert run(["inspect", str(snapshot / tiny_engine.folder.name), "--verify"]) == 0
    capfd.readouterr()
