"""The parts of a GPU check in turn, within their time: tests, parity of each backend, benchmark.

Knows the order and the clock. How each part is done is `bench`'s and the workflows' business.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from coolsd_rt.backends import backends
from coolsd_rt.backends.tensorrt.package import Flavour, package
from coolsd_rt.contract import Floating
from coolsd_rt.errors import CoolsdError
from coolsd_rt.spec import load_spec
from coolsd_rt.spec.model import Spec
from coolsd_rt.workflows.build import build, plan
from coolsd_rt.workflows.parity import parity
from tools.gpu.bench import LENGTH, How, Row, Subject, measure
from tools.gpu.compiled import compile_size
from tools.gpu.environment import environment, read_bandwidth
from tools.gpu.sizes import SIZES, TINY, Size, engine_of

ROOT = Path(__file__).resolve().parents[2]
TOKENS = (256, 576, 1024)
BATCHES = (1, 8)
COMPILED = ((SIZES["XL"].of(1024), "bf16"), (SIZES["XL"].of(1024), "int8"), (SIZES["B"].of(256), "bf16"))
HOWS: tuple[How, ...] = ("graph", "eager")
# What has to pass for a backend: (backend, precision), on the demo.
PROVEN = (
    ("torch", "fp32"), ("torch", "bf16"), ("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("tensorrt-rtx", "fp16"),
    ("tensorrt", "fp16"),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """seconds: after which nothing new starts. parts: of tests, parity, benchmark."""

    seconds: float
    parts: Sequence[str]
    rehearse: bool

    @property
    def device(self) -> str:
        return "cpu" if self.rehearse else "cuda"


class Check:
    """Runs a plan. `failed` names the parts that did not pass."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan, self._say = plan, say
        self._begun = time.perf_counter()
        self.failed: list[str] = []
        self.skipped: list[str] = []

    def run(self) -> dict[str, Any]:
        """All parts, as JSON data."""
        out: dict[str, Any] = {"rehearsal": self._plan.rehearse, "environment": environment(self._plan.device)}
        if "tests" in self._plan.parts:
            out["tests"] = self._tests()
        if "parity" in self._plan.parts:
            out["parity"] = self._parity()
        if "benchmark" in self._plan.parts:
            out["benchmark"] = self._benchmark()
        return out | {"failed": self.failed, "skipped": self.skipped, "seconds": round(self._spent, 1)}

    @property
    def _spent(self) -> float:
        return time.perf_counter() - self._begun

    def _late(self, what: str) -> bool:
        if self._spent < self._plan.seconds:
            return False
        self._skip(what, f"the {self._plan.seconds:g} s are over")
        return True

    def _skip(self, what: str, why: str) -> None:
        self.skipped.append(f"{what}: {why}")
        self._say(f"skipped {what}: {why}")

    def _tests(self) -> dict[str, Any] | None:
        if importlib.util.find_spec("pytest") is None:
            self._skip("tests", "pytest is not installed")
            return None
        self._say("tests")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "gpu",
            "-q",
            "-p",
            "no:cacheprovider",
            str(ROOT / "tests" / "gpu"),
        ]
        left = max(30.0, self._plan.seconds - self._spent)
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left, check=False)
        except subprocess.TimeoutExpired:
            self.failed.append("tests")
            return {"passed": False, "lines": [f"did not end within {left:.0f} s"]}
        lines = done.stdout.strip().splitlines()
        if done.returncode:
            self.failed.append("tests")
        return {"passed": done.returncode == 0, "lines": lines[-30:]}

    def _parity(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        wanted = (("torch", "fp32"), ("onnxruntime", "fp32")) if self._plan.rehearse else PROVEN
        for name, precision in wanted:
            what = f"parity of {name} {precision}"
            if name not in backends() or not backends()[name].installed:
                self._skip(what, "its package is not installed")
            elif not self._late(what):
                self._say(what)
                rows.append(self._prove(name, precision))
        return rows

    def _prove(self, name: str, precision: str) -> dict[str, Any]:
        """The demo built for a backend, and its parity report."""
        loaded = load_spec(ROOT / "pipelines" / "emoji.yaml")
        data = loaded.spec.resolved()
        data["engine"] |= {"backend": name, "precision": precision, "device": self._plan.device}
        row: dict[str, Any] = {"backend": name, "precision": precision}
        try:
            with tempfile.TemporaryDirectory() as folder:
                loaded = replace(loaded, spec=Spec.model_validate(data))
                engine = build(plan(loaded, Path(folder))).engine
                outcome = parity(engine.folder, pictures=4 if self._plan.rehearse else 32, spec_file=loaded.path)
        except CoolsdError as error:
            self.failed.append(f"{name} {precision}")
            return row | {"passed": False, "error": str(error)}
        if not outcome.passed:
            self.failed.append(f"{name} {precision}")
        receipt = outcome.receipt()
        kept = ("passed", "max_logit_error", "pictures", "identical", "failures")
        return row | {key: receipt[key] for key in kept}

    def _benchmark(self) -> dict[str, Any]:
        device = self._plan.device
        bandwidth = read_bandwidth(device)
        self._say(f"memory is read at {bandwidth / 1e9:.0f} GB/s")
        rows: list[Row] = []
        for size, batch in self._sizes():
            for dtype, how in (("bfloat16", "graph"), ("bfloat16", "eager")):
                what = f"{size.name}, {size.tokens} tokens, batch {batch}, {how}"
                if not self._late(what):
                    rows += self._measure(size, batch, "float32" if self._plan.rehearse else dtype, how, bandwidth)  # type: ignore[arg-type]
        for flavour in get_args(Flavour):
            for size, precision in COMPILED:
                what = f"{size.name}, {size.tokens} tokens, {flavour} {precision}"
                if not package(flavour).installed:
                    self._skip(what, "its package is not installed")
                elif self._plan.rehearse:
                    self._skip(what, "an engine runs on a GPU alone")
                elif not self._late(what):
                    rows += self._compiled(size, flavour, precision, bandwidth)
        return {"read_bytes_per_second": bandwidth, "rows": [row.as_dict() for row in rows]}

    def _compiled(self, size: Size, flavour: Flavour, precision: str, bandwidth: float) -> list[Row]:
        """TensorRT's engines of a size, plain and COOL-SD, one picture and the most at once."""
        self._say(f"compiling {size.name} for {flavour}, {precision}")
        try:
            with tempfile.TemporaryDirectory() as folder:
                made = compile_size(size, flavour, precision, BATCHES[-1], LENGTH, Path(folder), self._say)
                engine = made.load()
        except CoolsdError as error:
            self.failed.append(f"{size.name} {flavour} {precision}: {error}")
            return []
        weight = 1.0 if precision == "int8" else 2.0
        subject = Subject(f"{flavour} {precision}", size, engine.steps, engine.like(), weight)
        return [row for batch in BATCHES for row in self._rows(subject, batch, "graph", bandwidth)]

    def _sizes(self) -> list[tuple[Size, int]]:
        """The largest first: what is left out for lack of time is the least."""
        if self._plan.rehearse:
            return [(TINY, 1)]
        return [
            (size.of(tokens), batch)
            for size in reversed(SIZES.values())
            for tokens in reversed(TOKENS)
            for batch in BATCHES
        ]

    def _measure(self, size: Size, batch: int, dtype: Floating, how: How, bandwidth: float) -> list[Row]:
        engine = engine_of(size, self._plan.device, dtype)
        like = engine.like()
        subject = Subject(f"torch {dtype}", size, engine.steps, like, like.element_size())
        return self._rows(subject, batch, how, bandwidth)

    def _rows(self, subject: Subject, batch: int, how: How, bandwidth: float) -> list[Row]:
        size, rows = subject.size, list[Row]()
        for plain in (True, False):
            try:
                row = measure(subject, batch, plain, how, bandwidth, rounds=20, pictures=1 if how == "graph" else 0)
            except torch.cuda.OutOfMemoryError as error:
                self._skip(f"{size.name}, {size.tokens} tokens, batch {batch}", str(error).splitlines()[0])
                break
            rows.append(row)
            self._say(
                f"{size.name} {size.tokens} x{batch} {how} {row.way}: {row.round_ms:.3f} ms, "
                f"{row.over_floor:.2f} of the floor"
            )
        return rows
