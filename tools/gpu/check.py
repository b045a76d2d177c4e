"""The parts of a GPU check in turn, each within its share of the time: the most telling first.

Knows the order and the clock. How each part is done is `proofs`', `bench`'s and `compiled`'s business.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from coolsd_rt.backends import backends
from coolsd_rt.backends.tensorrt.package import Flavour, package
from coolsd_rt.backends.torch.triton.engine import FusedEngine, mismatch_reason
from coolsd_rt.contract import Floating
from coolsd_rt.device.cuda_graph import first_line
from coolsd_rt.errors import CoolsdError
from coolsd_rt.models.vq import VQConfig
from tools.gpu.bench import LENGTH, How, Row, Subject, measure, time_image_decoding
from tools.gpu.clock import Clock
from tools.gpu.compiled import compile_size
from tools.gpu.environment import environment, read_bandwidth
from tools.gpu.kernels import Bench
from tools.gpu.proofs import gpu_tests, prove
from tools.gpu.sizes import SIZES, TINY, TINY_IMAGE, Size, engine_of

# Each part and its share of the time; what one leaves, those behind it have.
PARTS = {"parity": 0.14, "xl": 0.2, "kernels": 0.08, "engines": 0.15, "tensorrt": 0.25, "tests": 0.15, "sizes": 0.03}
LARGEST = SIZES["XL"].of(1024)
TOKENS = (256, 576, 1024)
BATCHES = (1, 8)
Way = Literal["fused", "fused, overlapping", "torch"]
WAYS: tuple[Way, ...] = get_args(Way)  # by fused kernels, the same with dependent launches, and the eager networks
COMPILED = ((LARGEST, "bf16"), (LARGEST, "int8"), (SIZES["B"].of(256), "bf16"))
COMPILE_SECONDS = 110
# What has to pass for a backend, on the demo: (backend, precision). Foreign code comes after the first figures.
NETWORKS = (("torch", "fp32"), ("torch", "bf16"))
ENGINES = (("tensorrt-rtx", "fp16"), ("tensorrt", "fp16"), ("onnxruntime", "fp32"), ("onnxruntime", "fp16"))
IMAGES = 8


@dataclass(frozen=True)
class Plan:
    """seconds: after which nothing new starts. parts: of `PARTS`."""

    seconds: float
    parts: Sequence[str]
    rehearse: bool

    @property
    def device(self) -> str:
        return "cpu" if self.rehearse else "cuda"


class Lost(CoolsdError):
    """The GPU answers no more: nothing that follows in this process would mean anything."""


class Check:
    """Runs a plan. `failed` names the parts that did not pass."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan, self._say = plan, say
        self._clock = Clock(plan.seconds)
        self._out: dict[str, Any] = {}
        self._rows: list[Row] = []
        self._bandwidth = 0.0
        self._broken: set[str] = set()  # backends whose demo could not be run
        self.failed: list[str] = []
        self.skipped: list[str] = []

    def run(self) -> Iterator[dict[str, Any]]:
        """After each figure, all that is known so far as JSON data: what is killed later leaves the rest behind.

        A part that breaks is a failure of the check, with its error in the report, and the next part runs.
        """
        self._out = {"rehearsal": self._plan.rehearse, "environment": environment(self._plan.device)}
        yield self._so_far()  # the machine alone is worth a file
        work: dict[str, Callable[[], Iterator[None]]] = {
            "parity": lambda: self._parity(NETWORKS), "xl": self._largest, "kernels": self._kernels,
            "engines": lambda: self._parity(ENGINES), "tensorrt": self._compiled, "tests": self._tests,
            "sizes": self._sizes,
        }  # fmt: skip
        chosen = [name for name in PARTS if name in self._plan.parts]
        due, lost = 0.0, False
        for name in chosen:
            due = 1.0 if name == chosen[-1] else due + PARTS[name]
            self._clock.give(PARTS[name], due)
            if lost and name != "tests":  # which are a process of their own
                self._skip(name, "the GPU was lost")
                continue
            try:
                for _ in self._guarded(name, work[name]):
                    yield self._so_far()
            except Lost as error:
                lost = True
                self.failed.append(f"{name}: {error}")
            yield self._so_far()
        yield self._so_far()

    def _guarded(self, name: str, work: Callable[[], Iterator[None]]) -> Iterator[None]:
        try:
            yield from work()
        except Lost:
            raise
        except Exception as error:  # on a machine nobody has seen, anything may break: that is a finding
            self._note(name, error)

    def _note(self, what: str, error: BaseException) -> None:
        """A failure, and on with what is left. Raises Lost where the error took the GPU with it."""
        kind = "" if isinstance(error, CoolsdError) else f"{type(error).__name__}: "
        self.failed.append(f"{what}: {kind}{first_line(error)}")
        self._say(f"FAILED {self.failed[-1]}")
        self._still_there()

    def _still_there(self) -> None:
        """Raise Lost where the GPU answers no more, as after an illegal access."""
        if self._plan.rehearse:
            return
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            fix = "run the parts that are missing with --only"
            raise Lost("the GPU", expected="an answer", found=first_line(error), fix=fix) from error

    def _so_far(self) -> dict[str, Any]:
        done = {"failed": self.failed, "skipped": self.skipped, "seconds": round(self._clock.spent, 1)}
        if self._bandwidth:
            rows = [row.as_dict() for row in self._rows]
            done["benchmark"] = {"read_bytes_per_second": self._bandwidth, "rows": rows}
        return self._out | done

    def _late(self, what: str, needed: float = 0.0) -> bool:
        if why := self._clock.late(needed):
            self._skip(what, why)
        return bool(why)

    def _skip(self, what: str, why: str) -> None:
        self.skipped.append(f"{what}: {why}")
        self._say(f"skipped {what}: {why}")

    def _parity(self, proven: Sequence[tuple[str, str]]) -> Iterator[None]:
        rows: list[dict[str, Any]] = self._out.setdefault("parity", [])
        wanted = [one for one in proven if not self._plan.rehearse or one[1] == "fp32"]
        for name, precision in wanted:
            what = f"parity of {name} {precision}"
            if name not in backends() or not backends()[name].installed:
                self._skip(what, "its package is not installed")
            elif name == "onnxruntime" and not self._plan.rehearse and not _has_cuda_provider():
                self._skip(what, "this onnxruntime has no CUDA provider")
            elif not self._late(what):
                self._say(what)
                self._prove(name, precision, rows)
                yield

    def _prove(self, name: str, precision: str, rows: list[dict[str, Any]]) -> None:
        begun = self._clock.spent
        try:
            row = prove(name, precision, self._plan.device, 4 if self._plan.rehearse else IMAGES)
        except Exception as error:  # as in `_guarded`
            self._broken.add(name)
            rows.append({"backend": name, "precision": precision, "passed": False, "error": first_line(error)})
            self._note(f"{name} {precision}", error)
            return
        rows.append(row | {"seconds": round(self._clock.spent - begun, 1)})
        if not row["passed"]:
            self.failed.append(f"{name} {precision}")

    def _largest(self) -> Iterator[None]:
        """By each way; what draws fastest first."""
        size = TINY if self._plan.rehearse else LARGEST
        batches = BATCHES[: 1 if self._plan.rehearse else None]
        for way in WAYS[-1:] if self._plan.rehearse else WAYS:
            for batch in batches:
                yield from self._networks(size, batch, "graph", way)
        for batch in batches:
            if not self._late(f"image_decoding {batch}"):
                image = TINY_IMAGE if self._plan.rehearse else VQConfig()
                decoded = time_image_decoding(size.tokens, batch, self._plan.device, image)
                self._out.setdefault("image_decoding", []).append(asdict(decoded))
                yield

    def _kernels(self) -> Iterator[None]:
        """Each launch of a layer of the largest size."""
        what = "launches of a layer"
        if self._plan.rehearse:
            self._skip(what, "they run on a GPU alone")
            return
        if self._late(what):
            return
        rows: list[dict[str, Any]] = []
        self._out["kernels"] = rows
        self._say(f"each of the {what}")
        position = LARGEST.prefix + LARGEST.tokens // 2
        bench = Bench(replace(LARGEST, layers=24), position)
        for timing in bench.timings(lambda: self._late(f"more {what}"), self._note):
            rows.append(timing.as_dict())
            yield

    def _sizes(self) -> Iterator[None]:
        """The largest first: what is left out for lack of time is the least."""
        if self._plan.rehearse:
            yield from self._networks(TINY, 1, "eager", "torch")
            return
        yield from self._networks(LARGEST, 1, "eager", "torch")
        for size in reversed(SIZES.values()):
            for tokens in reversed(TOKENS):
                for batch in BATCHES:
                    if size.of(tokens) != LARGEST:
                        yield from self._networks(size.of(tokens), batch, "graph", "fused")

    def _networks(self, size: Size, batch: int, how: How, way: Way) -> Iterator[None]:
        """The networks at a size, plain and COOL-SD."""
        if self._late(f"{way}, {size.name}, {size.tokens} tokens, batch {batch}, {how}"):
            return
        dtype: Floating = "float32" if self._plan.rehearse else "bfloat16"
        name = f"{way} {dtype}"
        try:
            engine = engine_of(size, self._plan.device, dtype)
            if way != "torch":
                fused = FusedEngine(engine, pdl=way == "fused, overlapping")
                if why := mismatch_reason(engine, fused):
                    raise CoolsdError(f"{size.name}, {size.tokens} tokens", found=why)
                engine = fused
        except Exception as error:  # as in `_guarded`
            self._note(name, error)
            return
        like = engine.like()
        yield from self._measure(Subject(name, size, engine.steps, like, like.element_size()), batch, how)

    def _compiled(self) -> Iterator[None]:
        """TensorRT's engines of a size, plain and COOL-SD, one image and the most at once."""
        for flavour in get_args(Flavour):
            for size, precision in COMPILED:
                what = f"{size.name}, {size.tokens} tokens, {flavour} {precision}"
                if not package(flavour).installed:
                    self._skip(what, "its package is not installed")
                elif self._plan.rehearse:
                    self._skip(what, "an engine runs on a GPU alone")
                elif flavour in self._broken:
                    self._skip(what, f"the demo does not run on {flavour} here")
                elif not self._late(what, COMPILE_SECONDS):
                    yield from self._compile(size, flavour, precision)

    def _compile(self, size: Size, flavour: Flavour, precision: str) -> Iterator[None]:
        self._say(f"compiling {size.name} for {flavour}, {precision}")
        begun = self._clock.spent
        try:
            with tempfile.TemporaryDirectory() as folder:
                made = compile_size(size, flavour, precision, BATCHES[-1], LENGTH, Path(folder), self._say)
                engine = made.load()
        except Exception as error:  # as in `_guarded`
            self._note(f"{size.name} {flavour} {precision}", error)
            return
        self._say(f"compiled and loaded in {self._clock.spent - begun:.0f} s")
        weight = 1.0 if precision == "int8" else 2.0
        subject = Subject(f"{flavour} {precision}", size, engine.steps, engine.like(), weight)
        for batch in BATCHES:
            yield from self._measure(subject, batch, "graph")

    def _measure(self, subject: Subject, batch: int, how: How) -> Iterator[None]:
        size = subject.size
        if not self._bandwidth:
            self._bandwidth = read_bandwidth(self._plan.device)
            self._say(f"memory is read at {self._bandwidth / 1e9:.0f} GB/s")
        for plain in (True, False):
            what = f"{subject.backend}, {size.name}, {size.tokens} tokens, batch {batch}, {how}"
            if not plain and self._late(f"{what}, COOL-SD"):
                return
            images = 1 if how == "graph" else 0
            try:
                row = measure(subject, batch, plain, how, self._bandwidth, rounds=50, images=images)
            except torch.cuda.OutOfMemoryError as error:
                self._skip(what, first_line(error))
                return
            except (RuntimeError, CoolsdError) as error:
                self._note(what, error)
                return
            self._rows.append(row)
            self._say(
                f"{size.name} {size.tokens} x{batch} {subject.backend} {how} {row.way}: {row.round_ms:.3f} ms, "
                f"{row.over_floor:.2f} of the floor{', NO GRAPH: ' + row.note if row.note else ''}"
            )
            yield

    def _tests(self) -> Iterator[None]:
        if importlib.util.find_spec("pytest") is None:
            self._skip("tests", "pytest is not installed")
            return
        if self._late("tests"):
            return
        self._say("tests")
        self._out["tests"] = gpu_tests(self._clock.until - self._clock.spent)
        if not self._out["tests"]["passed"]:
            self.failed.append("tests")
        yield


def _has_cuda_provider() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
