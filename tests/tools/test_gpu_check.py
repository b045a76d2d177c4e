"""The GPU check's arithmetic, its report, and its way through on a CPU. Its figures need a GPU."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from coolsd_rt.errors import CoolsdError
from tools.gpu import check
from tools.gpu.bench import Subject, measure
from tools.gpu.compiled import compile_size
from tools.gpu.report import Report, markdown
from tools.gpu.sizes import SIZES, TINY, constant_rate, engine_of, floor_of, networks_of


def test_the_rate_gives_the_accept_length() -> None:
    for wanted in (1.0, 2.42, 2.73, 5.9):
        rate = constant_rate(wanted, 5)
        assert sum(rate**i for i in range(6)) == pytest.approx(wanted, abs=1e-9)


def test_the_floor_counts_the_weights_there_are() -> None:
    """Of a step: every matrix of the target's layers and head, once; no embedding is read whole."""
    target, draft = networks_of(TINY, "cpu")
    weights = sum(p.numel() for n, p in target.named_parameters() if p.ndim > 1 and "embed" not in n)
    own = sum(p.numel() for p in draft.parameters() if p.ndim > 1)
    floor = floor_of(TINY, rows=0, length=3, weight=2.0, item=2, position=10)
    assert floor.step == 2 * weights
    assert floor.round == 2 * (weights + 3 * (own + target.output.weight.numel()))
    cached = floor_of(TINY, rows=2, length=0, weight=0.0, item=2, position=10)
    assert cached.step == 2 * 2 * 2 * 10 * TINY.dim * TINY.layers


def test_published_sizes_are_published_sizes() -> None:
    """Millions of parameters, as models.md has them for class to image, less embeddings and norms."""
    for name, millions in (("B", 110.9), ("L", 342.9), ("XL", 774.7)):
        size = SIZES[name]
        layers = size.layers * (4 * size.dim**2 + 3 * size.dim * size.ffn)
        assert (layers + 2 * size.vocab * size.dim) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("plain", [True, False])
def test_a_row_is_measured(plain: bool) -> None:
    engine = engine_of(TINY, "cpu", "float32")
    subject = Subject("torch", TINY, engine.steps, engine.like(), 4.0)
    row = measure(subject, 1, plain, "graph", 1e9, rounds=2, pictures=1)
    assert row.round_ms > 0
    assert row.law_share > 0
    assert row.rounds is not None
    assert row.rounds <= TINY.tokens
    assert (row.rounds == TINY.tokens - 1) == plain


def test_a_rehearsal_goes_the_whole_way(tmp_path: Path) -> None:
    said: list[str] = []
    run = check.Check(check.Plan(60.0, ("benchmark",), rehearse=True), said.append)
    report = Report(tmp_path)
    files = [report.write(outcome) for outcome in run.run()][-1]
    document = json.loads(files[0].read_text())
    assert document["rehearsal"] is True
    assert {row["way"] for row in document["benchmark"]["rows"]} == {"plain", "COOL-SD"}
    assert "no figure counts" in files[1].read_text()
    assert any("skipped" in line for line in said)
    assert run.failed == []


def test_late_work_is_not_begun() -> None:
    run = check.Check(check.Plan(0.0, ("parity", "benchmark"), rehearse=True), lambda line: None)
    out = list(run.run())[-1]
    assert out["parity"] == []
    assert out["benchmark"]["rows"] == []
    assert all("the 0 s are over" in line or "GPU alone" in line or "installed" in line for line in out["skipped"])


def test_what_breaks_is_a_finding_and_the_rest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA error in the second measurement: the first is in the report, on the disk, and so is the error."""
    calls: list[Any] = []

    def broken(*args: Any, **named: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        return measure(*args, **named)

    monkeypatch.setattr("tools.gpu.check.measure", broken)
    run = check.Check(check.Plan(60.0, ("benchmark",), rehearse=True), lambda line: None)
    report = Report(tmp_path)
    files = [report.write(outcome) for outcome in run.run()][-1]
    document = json.loads(files[0].read_text())
    assert len(document["benchmark"]["rows"]) >= 1
    assert any("stream is capturing" in line for line in document["failed"])
    assert "stream is capturing" in files[1].read_text()


def test_a_place_that_cannot_be_written_is_said_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CoolsdError):
        Report(tmp_path / "file" / "x")


def test_failures_show() -> None:
    outcome = {
        "environment": {"gpu": None, "packages": {}}, "seconds": 1, "skipped": [], "failed": ["torch bf16"],
        "parity": [{"backend": "torch", "precision": "bf16", "passed": False, "error": "broken"}],
    }  # fmt: skip
    text = markdown(outcome)
    assert "FAILED: torch bf16" in text
    assert "no: broken" in text


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
def test_engines_of_a_size_are_built(tmp_path: Path) -> None:
    said: list[str] = []
    made = compile_size(TINY, "tensorrt-rtx", "int8", 2, 3, tmp_path, said.append)
    assert set(made.facts) == {"condition", "target", "draft", "image"}
    assert made.facts["target"]["precision"] == "int8"
    assert len(said) == 4
    if not torch.cuda.is_available():
        with pytest.raises(CoolsdError, match="an NVIDIA GPU"):
            made.load()


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_without_a_gpu_it_says_so() -> None:
    from tools.gpu_check import command

    with pytest.raises(CoolsdError, match="--rehearse"):
        command.callback(Path("nowhere"), 60.0, (), False)  # type: ignore[misc]
