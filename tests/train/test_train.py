"""Whole trainings on the tiny pipeline: resumed ones end at the same bytes, and every mistake is one clear line."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from coolsd_rt.checkpoints.load import load_draft, load_draft_model, load_rows, load_target
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.train import data
from coolsd_rt.train import run as module
from coolsd_rt.train.before import CHECKPOINT, LOG
from coolsd_rt.train.config import TrainCallbacks, TrainConfig
from coolsd_rt.train.networks import DraftSizes
from coolsd_rt.train.run import train_draft
from tests.tiny import TARGET, networks, write_weights
from tests.train.training import request


class _Killed(Exception):
    pass


def _at(step: int, what: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something in the middle of a step, once."""
    real, done = data.batch_at, list[int]()

    def batch(at: int, *rest: Any) -> list[int]:
        if at == step and not done:
            done.append(at)
            what()
        return real(at, *rest)

    monkeypatch.setattr(module, "batch_at", batch)


def _kill() -> None:
    raise _Killed


@pytest.mark.parametrize("kind", ["eagle", "eagle3", "model", "rows"])
def test_a_killed_training_resumes_to_the_same_bytes(
    kind: Any, tiny_spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = request(tiny_spec, tmp_path / "whole.safetensors", kind=kind)
    train_draft(whole)
    other = replace(whole, out=tmp_path / "killed.safetensors")
    _at(4, _kill, monkeypatch)  # behind the checkpoint of step 3
    with pytest.raises(_Killed):
        train_draft(other)
    notes: list[str] = []
    report = train_draft(other, TrainCallbacks(note=notes.append))
    assert notes == ["going on from step 3"]
    assert report.steps == 6
    assert [h["step"] for h in report.history] == [0, 3, 6]
    assert other.out.read_bytes() == whole.out.read_bytes()
    first, second = (load_file(str(r.folder / CHECKPOINT)) for r in (whole, other))
    assert all(torch.equal(first[k], second[k]) for k in first)
    target = load_target(tiny_spec.parent / "target.safetensors")
    {"model": load_draft_model, "rows": load_rows}.get(kind, load_draft)(other.out, target)


def test_it_learns_and_says_so(tiny_spec: Path, tmp_path: Path) -> None:
    asked = request(
        tiny_spec, tmp_path / "d.safetensors", kind="model", data="self:12", steps=60, every=20, batch=6, lr=0.02
    )
    seen: list[float] = []
    report = train_draft(asked, TrainCallbacks(stepped=lambda p: seen.append(p.loss)))
    assert seen[-1] < seen[0]
    assert report.best.accept_length > report.start.accept_length
    assert report.best.accept_length == max(h["accept_length"] for h in report.history)
    lines = [json.loads(line) for line in (asked.folder / LOG).read_text().splitlines()]
    assert lines[0]["accept_length"] == report.start.accept_length
    assert {"loss", "tv/1"} <= set(lines[1])
    assert json.loads(json.dumps(report.as_dict()))["best_step"] == report.best_step


def test_it_stops_when_accept_length_no_longer_rises(tiny_spec: Path, tmp_path: Path) -> None:
    asked = request(tiny_spec, tmp_path / "d.safetensors", steps=50, every=1, patience=2, lr=1e-9)
    asked = replace(asked, start_from=tiny_spec.parent / "draft.safetensors")
    report = train_draft(asked)
    assert report.stopped == "patience"
    assert report.steps < 50
    assert report.steps - report.best_step == 2
    again = train_draft(asked)  # finished: it says the same, and trains nothing
    assert (again.steps, again.best_step, again.stopped) == (report.steps, report.best_step, "patience")


def test_the_best_weights_stand_in_out(tiny_spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes after them is worse here, and not written."""
    values = iter([1.5, 2.0, 1.0])
    real = module.Training._acceptance
    monkeypatch.setattr(module.Training, "_acceptance", lambda self: replace(real(self), accept_length=next(values)))
    kept: list[bytes] = []
    out = tmp_path / "d.safetensors"
    report = train_draft(
        request(tiny_spec, out), TrainCallbacks(measured=lambda step, found, best: kept.append(out.read_bytes()))
    )
    assert report.best_step == 3
    assert kept[0] != kept[1]
    assert out.read_bytes() == kept[1] == kept[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "the end of a job"])
def test_a_signal_saves_the_last_whole_step(
    number: signal.Signals, tiny_spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = request(tiny_spec, tmp_path / "whole.safetensors")
    train_draft(whole)
    other = replace(whole, out=tmp_path / "cut.safetensors")
    _at(4, lambda: os.kill(os.getpid(), number), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_draft(other)
    notes: list[str] = []
    train_draft(other, TrainCallbacks(note=notes.append))
    assert notes == ["going on from step 5"]  # the step it came in was finished
    assert other.out.read_bytes() == whole.out.read_bytes()


def test_another_trainings_checkpoint_or_file_is_refused(tiny_spec: Path, tmp_path: Path) -> None:
    asked = request(tiny_spec, tmp_path / "d.safetensors", steps=1, every=1)
    train_draft(asked)
    before = asked.out.read_bytes()
    with pytest.raises(UserError, match=r"checkpoint.safetensors: lr: expected 0.01, found 0.001; give the settings"):
        train_draft(replace(asked, lr=0.01))
    with pytest.raises(UserError, match=r"checkpoint.safetensors: tv: expected 9.0, found 1.0"):
        train_draft(replace(asked, tv_weight=9.0))
    heavier = replace(asked, tv_weight=9.0, out=tmp_path / "tv.safetensors")
    train_draft(heavier)
    assert heavier.out.read_bytes() != before
    shipped = tmp_path / "shipped.safetensors"
    shipped.write_bytes(before)
    with pytest.raises(UserError, match=r"expected no file, or one that this training wrote.*--from"):
        train_draft(replace(asked, out=shipped))
    assert shipped.read_bytes() == asked.out.read_bytes() == before


def test_a_full_disk_is_one_line_and_leaves_what_was_there(
    tiny_spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tiny_spec, tmp_path / "d.safetensors", steps=1, every=1)
    train_draft(asked)
    before = {p: p.read_bytes() for p in (asked.out, asked.folder / CHECKPOINT)}

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    for room in ("checkpoint", "networks"):
        monkeypatch.setattr(f"coolsd_rt.train.{room}.write_atomic", full)
    with pytest.raises(CoolsdError, match="no space left"):
        train_draft(replace(asked, steps=2))
    assert {p: p.read_bytes() for p in before} == before


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"data": "self:no"}, "expected self:N"),
    ({"data": "self:" + "9" * 5000}, "expected self:N with N a whole number from 1 to 100000000, found self:999"),
    (
        {"data": "/nowhere"},
        "--prompts: expected none with --data DIR, whose captions are the prompts, found 6; leave it",
    ),
    (
        {"data": "/nowhere", "prompts": ()},
        r"/nowhere: expected a folder of images with captions, or self:N, found nothing",
    ),
    ({"prompts": ("red apple",)}, "expected at least 2, one of them held out"),
    ({"prompts": ("red apple", "a b c d e f")}, "prompt too long"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_data_is_one_line_and_writes_nothing(
    change: dict[str, Any], message: str, tiny_spec: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train_draft(request(tiny_spec, tmp_path / "d.safetensors", **change))
    assert list(tmp_path.iterdir()) == []


def test_a_start_for_another_target_is_refused(tiny_spec: Path, tmp_path: Path) -> None:
    from coolsd_rt.models.eagle import Eagle, EagleConfig

    config = EagleConfig(dim=32, heads=1, ffn=48)
    write_weights(tmp_path / "small.safetensors", Eagle(config), config)
    asked = request(tiny_spec, tmp_path / "d.safetensors", start_from=tmp_path / "small.safetensors")
    with pytest.raises(UserError, match=r"config: dim: expected the target's 64, found 32"):
        train_draft(asked)
    target, _, _ = networks()
    write_weights(tmp_path / "large.safetensors", target, replace(TARGET, grid=4))
    with pytest.raises(UserError):  # a model is no head
        train_draft(replace(asked, start_from=tmp_path / "large.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"own_steps": 3, "kind": "eagle"}, "--own-steps"), ({"lr": 2.0}, "^lr: "), ({"batch": 0}, "^batch: "),
     ({"noise": -1.0}, "^noise: "), ({"seed": -1}, "^seed: "), ({"held_out": 0}, "^held_out: "), ({"lr": 0}, "^lr: "),
     ({"noise": 0.1, "kind": "model"}, "^--noise: expected none for the kind model, which reads no features, found 0"),
     ({"kind": "eagle", "shape": DraftSizes(dim=64)}, "^--dim: expected none for the kind eagle, which has the target"),
     ({"shape": DraftSizes(heads=2)}, "^--heads: expected none for the kind eagle3, which has the target's, found 2"),
     ({"steps": 10**9}, "^steps: "), ({"device": "tpu"}, "^device: expected one of cpu")],
)  # fmt: skip
def test_wrong_numbers_are_refused_at_once(change: dict[str, Any], message: str, tiny_spec: Path) -> None:
    with pytest.raises(UserError, match=message):
        request(tiny_spec, Path("d.safetensors"), **change)


def test_absent_extras_are_named(tiny_spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: TrainConfig = request(tiny_spec, tmp_path / "d.safetensors", steps=1)
    for name, more in (("wandb", {"wandb": "p"}), ("tensorboard", {"tensorboard": tmp_path / "tb"})):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
        with pytest.raises(MissingExtra, match=name):
            train_draft(replace(asked, **more))
        monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MissingExtra, match="accelerate"):
        train_draft(asked)
