"""The parts of a GPU check in turn, within their time: tests, parity of each backend, benchmark.

Knows the order and the clock. How each part is done is `bench`'s and the workflows' business.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from coolsd_rt.backends import backends
from coolsd_rt.backends.tensorrt.package import Flavour, package
from coolsd_rt.contract import Floating
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
COMPILE_AFTER = (SIZES["XL"].of(1024), 1)
COMPILE_SECONDS = 120
TESTS_SHARE = 0.3  # of the time
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

    def run(self) -> Iterator[dict[str, Any]]:
        """After each part, all that is known so far as JSON data: what is killed later leaves the rest behind.

        A part that breaks is a failure of the check, with its error in the report, and the next part runs.
        """
        out: dict[str, Any] = {"rehearsal": self._plan.rehearse, "environment": environment(self._plan.device)}
        parts: dict[str, Callable[[], Iterator[Any]]] = {
            "tests": self._tests, "parity": self._parity, "benchmark": self._benchmark
        }  # fmt: skip
        for name, part in parts.items():
            if name not in self._plan.parts:
                continue
            try:
                for found in part():
                    out[name] = found
                    yield self._so_far(out)
            except Exception as error:  # on a machine nobody has seen, anything may break: that is a finding
                self.failed.append(f"{name}: {type(error).__name__}: {_line(error)}")
            yield self._so_far(out)

    def _so_far(self, out: dict[str, Any]) -> dict[str, Any]:
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

    def _tests(self) -> Iterator[dict[str, Any]]:
        if importlib.util.find_spec("pytest") is None:
            self._skip("tests", "pytest is not installed")
            return
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
        left = max(30.0, TESTS_SHARE * self._plan.seconds - self._spent)
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left, check=False)
        except subprocess.TimeoutExpired:
            self.failed.append("tests")
            yield {"passed": False, "lines": [f"did not end within {left:.0f} s"]}
            return
        lines = done.stdout.strip().splitlines()
        if done.returncode:
            self.failed.append("tests")
        yield {"passed": done.returncode == 0, "lines": lines[-30:]}

    def _parity(self) -> Iterator[list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = []
        wanted = (("torch", "fp32"), ("onnxruntime", "fp32")) if self._plan.rehearse else PROVEN
        for name, precision in wanted:
            what = f"parity of {name} {precision}"
            if name not in backends() or not backends()[name].installed:
                self._skip(what, "its package is not installed")
            elif name == "onnxruntime" and not self._plan.rehearse and not _has_cuda_provider():
                self._skip(what, "this onnxruntime has no CUDA provider")
            elif not self._late(what):
                self._say(what)
                rows.append(self._prove(name, precision))
                yield rows
        yield rows

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
        except Exception as error:  # as in `run`
            self.failed.append(f"{name} {precision}")
            return row | {"passed": False, "error": _line(error)}
        if not outcome.passed:
            self.failed.append(f"{name} {precision}")
        receipt = outcome.receipt()
        kept = ("passed", "max_logit_error", "pictures", "identical", "failures")
        return row | {key: receipt[key] for key in kept}

    def _benchmark(self) -> Iterator[dict[str, Any]]:
        device = self._plan.device
        bandwidth = read_bandwidth(device)
        self._say(f"memory is read at {bandwidth / 1e9:.0f} GB/s")
        rows: list[Row] = []

        def found() -> dict[str, Any]:
            return {"read_bytes_per_second": bandwidth, "rows": [row.as_dict() for row in rows]}

        for size, batch in self._sizes():
            for how in HOWS:
                what = f"{size.name}, {size.tokens} tokens, batch {batch}, {how}"
                if not self._late(what):
                    rows += self._measure(size, batch, how, bandwidth)
                    yield found()
            if (size, batch) == COMPILE_AFTER:  # in time: the largest sizes first, and both kinds beside each other
                for more in self._all_compiled(bandwidth):
                    rows += more
                    yield found()
        if self._plan.rehearse:
            for more in self._all_compiled(bandwidth):
                rows += more
        yield found()

    def _all_compiled(self, bandwidth: float) -> Iterator[list[Row]]:
        for flavour in get_args(Flavour):
            for size, precision in COMPILED:
                what = f"{size.name}, {size.tokens} tokens, {flavour} {precision}"
                if not package(flavour).installed:
                    self._skip(what, "its package is not installed")
                elif self._plan.rehearse:
                    self._skip(what, "an engine runs on a GPU alone")
                elif self._spent > self._plan.seconds - COMPILE_SECONDS:
                    self._skip(what, f"compiling takes about {COMPILE_SECONDS} s, and fewer are left")
                else:
                    yield self._compiled(size, flavour, precision, bandwidth)

    def _compiled(self, size: Size, flavour: Flavour, precision: str, bandwidth: float) -> list[Row]:
        """TensorRT's engines of a size, plain and COOL-SD, one picture and the most at once."""
        self._say(f"compiling {size.name} for {flavour}, {precision}")
        try:
            with tempfile.TemporaryDirectory() as folder:
                made = compile_size(size, flavour, precision, BATCHES[-1], LENGTH, Path(folder), self._say)
                engine = made.load()
        except Exception as error:  # as in `run`
            self.failed.append(f"{size.name} {flavour} {precision}: {_line(error)}")
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

    def _measure(self, size: Size, batch: int, how: How, bandwidth: float) -> list[Row]:
        dtype: Floating = "float32" if self._plan.rehearse else "bfloat16"
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
                self._skip(f"{size.name}, {size.tokens} tokens, batch {batch}", _line(error))
                break
            except RuntimeError as error:
                self.failed.append(f"{subject.backend} {size.name} {size.tokens} x{batch} {how}: {_line(error)}")
                break
            rows.append(row)
            self._say(
                f"{size.name} {size.tokens} x{batch} {how} {row.way}: {row.round_ms:.3f} ms, "
                f"{row.over_floor:.2f} of the floor"
            )
        return rows


def _has_cuda_provider() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _line(error: BaseException) -> str:
    """An error in one line; CUDA's are pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
