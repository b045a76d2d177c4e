"""The GPU check's arithmetic, its report, and its way through on a CPU. Its figures need a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from coolsd_rt.errors import CoolsdError
from tools.gpu import check, proofs
from tools.gpu.bench import ImageDecoding, Subject, measure
from tools.gpu.clock import Clock
from tools.gpu.compiled import compile_size
from tools.gpu.kernels import OTHERS, Bench, Timing
from tools.gpu.proofs import gpu_tests
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
    row = measure(subject, 1, plain, "graph", 1e9, rounds=2, images=1)
    assert row.round_ms > 0
    assert row.law_share > 0
    assert row.rounds is not None
    assert row.rounds <= TINY.tokens
    assert (row.rounds == TINY.tokens - 1) == plain


def test_a_rehearsal_goes_the_whole_way(tmp_path: Path) -> None:
    said: list[str] = []
    run = check.Check(check.Plan(60.0, ("xl", "tensorrt", "sizes"), rehearse=True), said.append)
    report = Report(tmp_path)
    files = [report.write(outcome) for outcome in run.run()][-1]
    document = json.loads(files[0].read_text())
    assert document["rehearsal"] is True
    rows = document["benchmark"]["rows"]
    assert [(row["how"], row["way"]) for row in rows] == [
        ("graph", "plain"),
        ("graph", "COOL-SD"),
        ("eager", "plain"),
        ("eager", "COOL-SD"),
    ]
    assert all(row["note"] == "" for row in rows)
    [decoded] = document["image_decoding"]
    assert (decoded["tokens"], decoded["batch"]) == (TINY.tokens, 1)
    assert f"ImageDecoding 1 of {TINY.tokens} codes takes" in files[1].read_text()
    assert "no figure counts" in files[1].read_text()
    assert any("skipped" in line for line in said)
    assert run.failed == []


def test_late_work_is_not_begun() -> None:
    run = check.Check(check.Plan(0.0, tuple(check.PARTS), rehearse=True), lambda line: None)
    out = list(run.run())[-1]
    assert out["parity"] == []
    assert "benchmark" not in out
    words = ("0 s are left", "GPU alone", "installed")
    assert all(any(word in line for word in words) for line in out["skipped"])


def test_parts_come_in_their_order_and_keep_to_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells most first, whatever order was asked for; what one part leaves, the next has; what one takes too
    long leaves the others theirs."""
    run = check.Check(check.Plan(100.0, ("sizes", "parity", "xl", "tests"), rehearse=True), lambda line: None)
    now, begun = [0.0], list[tuple[str, float]]()
    monkeypatch.setattr(Clock, "spent", property(lambda self: now[0]))

    def part(name: str, takes: float) -> Any:
        def work(*_: Any) -> Any:
            begun.append((name, run._clock.until))
            now[0] += takes
            yield

        return work

    parts = (("parity", "_parity", 4.0), ("xl", "_largest", 50.0), ("tests", "_tests", 10.0), ("sizes", "_sizes", 1.0))
    for name, method, takes in parts:
        monkeypatch.setattr(run, method, part(name, takes))
    outcomes = list(run.run())
    assert [name for name, _ in begun] == ["parity", "xl", "tests", "sizes"]
    assert [until for _, until in begun] == pytest.approx([14.0, 34.0, 69.0, 100.0])
    assert len(outcomes) == 10
    now[0] = 90.0
    assert run._late("a build", 30.0)
    assert not run._late("a row")
    assert run.skipped == ["a build: 10 s are left to its part, and it takes about 30 s"]


def test_a_backend_whose_demo_breaks_is_not_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, *args: Any) -> Any:
        raise CoolsdError(f"engine target of {name}", expected="an engine that TensorRT loads", found="no such GPU")

    monkeypatch.setattr(check, "prove", broken)
    monkeypatch.setattr(check, "compile_size", lambda *args: pytest.fail("compiled all the same"))
    monkeypatch.setattr(check, "package", lambda flavour: SimpleNamespace(installed=True))
    monkeypatch.setattr(check, "ENGINES", (("tensorrt-rtx", "fp16"), ("tensorrt", "fp16")))
    names = dict.fromkeys(("tensorrt-rtx", "tensorrt"), SimpleNamespace(installed=True))
    monkeypatch.setattr(check, "backends", lambda: names)
    monkeypatch.setattr(check.Check, "_still_there", lambda self: None)
    monkeypatch.setattr(check, "environment", lambda device: {"gpu": None, "packages": {}})
    run = check.Check(check.Plan(460.0, ("engines", "tensorrt"), rehearse=False), lambda line: None)
    out = list(run.run())[-1]
    assert [row["error"].split(":")[0] for row in out["parity"]] == [
        "engine target of tensorrt-rtx",
        "engine target of tensorrt",
    ]
    assert len([line for line in out["skipped"] if "the demo does not run on" in line]) == 6


def test_launches_are_reported_until_it_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = Timing("wo", 2, 1, "", True, 4.0, 8_000_000)
    monkeypatch.setattr(check, "environment", lambda device: {"gpu": None, "packages": {}})
    monkeypatch.setattr(
        check, "Bench", lambda *args: SimpleNamespace(timings=lambda late, broken: (timing for _ in range(2 - late())))
    )
    run = check.Check(check.Plan(460.0, ("kernels",), rehearse=False), lambda line: None)
    out = list(run.run())[-1]
    assert [row["bytes_per_second"] for row in out["kernels"]] == [2e12, 2e12]
    assert "| wo | 2 | 1 | default | yes | 4.0 | 2000 |" in markdown(out)


@pytest.mark.parametrize("why", ["", "logits are 0.9 from the eager networks'"])
def test_fused_steps_that_are_wrong_are_not_timed(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """One row a way where they are right; where they are wrong, a failure, and the eager networks' row."""
    timed: list[str] = []
    monkeypatch.setattr(check, "environment", lambda device: {"gpu": None, "packages": {}})
    monkeypatch.setattr(check, "engine_of", lambda size, device, dtype: engine_of(TINY, "cpu", "float32"))
    monkeypatch.setattr(check, "mismatch_reason", lambda engine, fused: why)
    monkeypatch.setattr(check.Check, "_still_there", lambda self: None)

    def measured(self: Any, subject: Subject, batch: int, how: str) -> Iterator[None]:
        timed.append(f"{subject.backend} {batch}")
        yield

    monkeypatch.setattr(check.Check, "_measure", measured)
    monkeypatch.setattr(
        check, "time_image_decoding", lambda tokens, batch, device, image: ImageDecoding(tokens, batch, 0.1)
    )
    run = check.Check(check.Plan(460.0, ("xl",), rehearse=False), lambda line: None)
    out = list(run.run())[-1]
    eager = ["torch bfloat16 1", "torch bfloat16 8"]
    kernels = [f"{way} bfloat16 {batch}" for batch in (1, 8) for way in ("fused", "fused, overlapping")]
    assert sorted(timed) == sorted(eager if why else eager + kernels)
    assert len(out["failed"]) == (4 if why else 0)


@pytest.mark.parametrize("broken", ["prove", "engine_of"])
def test_a_gpu_that_is_lost_ends_the_check_with_what_was_found(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Wherever the error comes from; the tests, in a process of their own, still run."""

    def lost(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(check, broken, lost)
    if broken != "prove":
        monkeypatch.setattr(check, "prove", lambda *args: {"passed": True})
    monkeypatch.setattr(check, "Bench", lambda *args: pytest.fail("went on without a GPU"))
    monkeypatch.setattr(check, "gpu_tests", lambda seconds: {"passed": True, "lines": ["1 passed"]})
    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    monkeypatch.setattr(check, "environment", lambda device: {"gpu": None, "packages": {}})
    run = check.Check(check.Plan(460.0, ("parity", "xl", "kernels", "tests"), rehearse=False), lambda line: None)
    out = list(run.run())[-1]
    said = "RuntimeError: CUDA error: an illegal memory access was encountered"
    part, what = ("parity", "torch fp32") if broken == "prove" else ("xl", "fused bfloat16")
    assert out["failed"] == [
        f"{what}: {said}",
        f"{part}: the GPU: expected an answer, found CUDA error: an illegal memory access was encountered; "
        "run the parts that are missing with --only",
    ]
    assert "kernels: the GPU was lost" in out["skipped"]
    assert out["tests"]["passed"]


def test_a_way_that_breaks_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[str] = []

    def wrong(engine: Any, fused: Any) -> str:
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")

    def measured(self: Any, subject: Subject, batch: int, how: str) -> Iterator[None]:
        timed.append(f"{subject.backend} {batch}")
        yield

    monkeypatch.setattr(check, "environment", lambda device: {"gpu": None, "packages": {}})
    monkeypatch.setattr(check, "engine_of", lambda size, device, dtype: engine_of(TINY, "cpu", "float32"))
    monkeypatch.setattr(check, "mismatch_reason", wrong)
    monkeypatch.setattr(check.Check, "_still_there", lambda self: None)
    monkeypatch.setattr(check.Check, "_measure", measured)
    monkeypatch.setattr(
        check, "time_image_decoding", lambda tokens, batch, device, image: ImageDecoding(tokens, batch, 0.1)
    )
    run = check.Check(check.Plan(460.0, ("xl",), rehearse=False), lambda line: None)
    out = list(run.run())[-1]
    assert timed == ["torch bfloat16 1", "torch bfloat16 8"]
    assert len(out["failed"]) == 4
    assert all("CUBLAS" in line for line in out["failed"])


def test_blocks_that_fail_leave_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing begins when it is late."""
    told: list[str] = []

    def timed(self: Bench, rows: int, positions: int, name: str, blocks: Any, pdl: bool) -> Iterator[Timing]:
        if name == "4 warps":
            raise RuntimeError("out of resources")
        yield Timing("wo", rows, positions, name, pdl, 1.0, 1)

    monkeypatch.setattr(Bench, "__init__", lambda self: None)
    monkeypatch.setattr(Bench, "_all", timed)
    found = list(Bench().timings(lambda: False, lambda what, error: told.append(what)))  # type: ignore[call-arg]
    assert {row.blocks for row in found} == {"", *OTHERS} - {"4 warps"}
    assert told == ["launches of 2 x 1, 4 warps, overlapping False"]
    assert list(Bench().timings(lambda: True, lambda what, error: None)) == []  # type: ignore[call-arg]


def test_tests_that_take_too_long_leave_what_they_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one that failed before is named, with its reason."""
    folder = tmp_path / "tests" / "gpu"
    folder.mkdir(parents=True)
    text = """
import time, pytest
pytestmark = pytest.mark.gpu
def test_one():
    pass
def test_wrong():
    assert "this" == "that"
def test_slow():
    time.sleep(60)
"""
    (folder / "test_some.py").write_text(text)
    monkeypatch.setattr(proofs, "ROOT", tmp_path)
    monkeypatch.setattr(proofs, "_LEAST", 15.0)  # of which a busy machine takes most to begin
    found = gpu_tests(0.1)
    assert not found["passed"]
    assert found["lines"][-1] == "did not end within 0 s"
    assert any("test_some.py::test_wrong" in line for line in found["lines"])
    assert any("1 failed, 1 passed" in line for line in found["lines"])


def test_a_round_without_a_graph_says_so(tmp_path: Path) -> None:
    row = {
        "size": "XL", "tokens": 1024, "batch": 1, "backend": "torch bfloat16", "how": "graph", "way": "plain",
        "round_ms": 1.0, "floor_ms": 0.5, "law_share": 0.1, "image_s": None, "rounds": None, "over_floor": 2.0,
        "note": "operation not permitted",
    }  # fmt: skip
    proof = {
        "backend": "torch", "precision": "fp32", "passed": True, "max_logit_error": 0.0, "images": 8, "identical": 8,
        "failures": [], "rounds": {"images": 4, "identical": 3, "near_ties": 1, "graph_fallback_reason": ""},
    }  # fmt: skip
    outcome = {
        "environment": {"gpu": None, "packages": {}}, "seconds": 1, "skipped": [], "failed": [], "parity": [proof],
        "benchmark": {"read_bytes_per_second": 1e9, "rows": [row]},
    }  # fmt: skip
    text = markdown(outcome)
    assert "| NO GRAPH: operation not permitted | plain |" in text
    assert "| 8 of 8 | 3 of 4, 1 at near ties |" in text


def test_what_breaks_is_a_finding_and_the_rest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA error in the second measurement: the first is in the report, on the disk, and so is the error."""
    calls: list[Any] = []

    def broken(*args: Any, **named: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        return measure(*args, **named)

    monkeypatch.setattr("tools.gpu.check.measure", broken)
    run = check.Check(check.Plan(60.0, ("xl", "sizes"), rehearse=True), lambda line: None)
    report = Report(tmp_path)
    files = [report.write(outcome) for outcome in run.run()][-1]
    document = json.loads(files[0].read_text())
    assert len(document["benchmark"]["rows"]) == 3
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


def test_a_package_that_is_missing_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pydantic.py").write_text("raise ModuleNotFoundError('No module named pydantic', name='pydantic')")
    command = [sys.executable, str(proofs.ROOT / "tools" / "gpu_check.py"), "--rehearse"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: pydantic is not installed")
    assert done.stderr.count("\n") == 1
