"""`coolsd-rt train-draft`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from coolsd_rt.cli import train_draft as verb
from coolsd_rt.errors import UserError
from tests.train.training import PROMPTS


def _args(spec: Path, out: Path, *more: str) -> list[str]:
    prompts = out.parent / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    return [
        str(spec),
        "--data",
        "self:4",
        "--out",
        str(out),
        "--prompts",
        str(prompts),
        "--steps",
        "2",
        "--batch",
        "2",
        "--every",
        "1",
        "--held-out",
        "2",
        "--device",
        "cpu",
        *more,
    ]


def test_json_is_one_document_and_progress_is_plain_lines(tiny_spec: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(verb.command, _args(tiny_spec, tmp_path / "d.safetensors", "--json"))
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["best"]["accept_length"] >= document["start"]["accept_length"]
    assert len(document["best"]["acceptance_by_position"]) == 3
    again = CliRunner().invoke(verb.command, _args(tiny_spec, tmp_path / "d.safetensors"))
    assert "going on from step 2" in again.stderr
    assert "accept length, lossless" in again.stdout


def test_tensorboard_gets_the_figures(tiny_spec: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    done = CliRunner().invoke(
        verb.command, _args(tiny_spec, tmp_path / "d.safetensors", "--tensorboard", str(tmp_path / "tb"))
    )
    assert done.exit_code == 0, done.output
    assert any((tmp_path / "tb").glob("events.*"))
    assert "step 1: accept length" in done.stderr
    assert "drawing self images: 4 of 4" in done.stderr


def test_a_wrong_name_is_said_before_anything_is_loaded(tiny_spec: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(verb.command, _args(tiny_spec, tmp_path / "d.pt"))
    assert isinstance(done.exception, UserError)
    assert "ends in .safetensors" in str(done.exception)
