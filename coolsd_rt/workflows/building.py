"""`coolsd_rt.build`: builds a spec's engine from Python, verifies it if required, and promotes it.

Knows the arguments and events of the Python API. Does not know stages (`build`) or when an engine is promoted
(`promote`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coolsd_rt.errors import UserError
from coolsd_rt.shown import shown
from coolsd_rt.spec import load_spec
from coolsd_rt.spec.fields import check_fields
from coolsd_rt.workflows import promote as promoting
from coolsd_rt.workflows.build import run as builds
from coolsd_rt.workflows.build.run import BuildPlan, PlannedStage
from coolsd_rt.workflows.parity import run as proofs

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Backend = Literal["onnxruntime", "torch", "tensorrt", "tensorrt-rtx"]
Device = Literal["cpu", "cuda"]
BuildState = Literal["planned", "started", "waiting", "compiling", "cached", "built", "verifying"]


@dataclass(frozen=True)
class BuildEvent:
    """One event of a build.

    Attributes:
        state: "planned": the first event, with `total` stages. "started", "waiting" (another process runs the stage),
            "compiling", "cached", "built": events of one stage. "verifying": parity of a GPU engine.
        stage: the stage's name, or "" if the event belongs to no stage.
        done: number of finished stages; in "compiling", finished steps of the compiler's phase; in "verifying",
            compared images.
        total: the number that `done` counts up to.
        seconds: wall time of the stage, in "cached" and "built".
    """

    state: BuildState
    stage: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class BuildOutput:
    """A finished build.

    Attributes:
        folder: the engine's folder, OUT/NAME/FINGERPRINT; `Pipeline.load` takes it.
        name: the spec's name.
        fingerprint: hash of everything that the engine was made from.
        fresh: stages that this call ran; the others were cached.
        seconds: wall time of the build, without parity.
        current: whether OUT/NAME points to this engine now. A GPU engine has to pass parity first.
        passed: whether the engine passed parity; None if no parity is required (CPU engine) or no GPU is available.
        failures: one line for each parity threshold that was missed.
    """

    folder: Path
    name: str
    fingerprint: str
    fresh: tuple[str, ...]
    seconds: float
    current: bool
    passed: bool | None = None
    failures: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _BuildArguments:
    """The checked arguments of `build`."""

    spec: Path
    out: Path
    precision: Precision | None
    backend: Backend | None
    device: Device | None

    def __post_init__(self) -> None:
        check_fields(self)


OnEvent = Callable[[BuildEvent], object]


def build(
    spec: str | Path,
    *,
    out: str | Path = promoting.ENGINES,
    precision: Precision | None = None,
    backend: Backend | None = None,
    device: Device | None = None,
    on_event: OnEvent | None = None,
) -> BuildOutput:
    """Build a spec's engine as the command `coolsd-rt build` does.

    Stages whose inputs did not change are not run again.

    Args:
        spec: path of the spec.
        out: folder for engines; the engine is written to OUT/NAME/FINGERPRINT.
        precision, backend, device: replace the spec's `engine` values.
        on_event: called with each `BuildEvent`; "compiling" events come from another thread.

    Raises:
        UserError: the spec, a weights file or an argument is wrong.
        MissingExtra: a stage has to run, and a package that it needs is not installed.
        CoolsdError: a stage failed, or the disk is full.
    """
    asked = _BuildArguments(spec, out, precision, backend, device)  # type: ignore[arg-type]  # a str becomes a Path
    if on_event is not None and not callable(on_event):
        raise UserError("on_event", expected="a function", found=shown(on_event))
    loaded = builds.with_engine(
        load_spec(asked.spec),
        backend=asked.backend,
        device=asked.device,
        precision=asked.precision,
        option="{key} {value}",
    )
    plan = builds.plan(loaded, asked.out)
    made = promoting.promote(plan, None if on_event is None else _BuildTelling(on_event).listener())
    manifest = made.built.engine.manifest
    return BuildOutput(
        folder=made.folder,
        name=manifest.name,
        fingerprint=manifest.fingerprint,
        fresh=made.built.fresh,
        seconds=made.built.seconds,
        current=made.current,
        passed=made.passed,
        failures=made.failures,
    )


class _BuildTelling:
    """Converts the callbacks of a build and a parity run to events."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event, self._stage, self._done, self._total = on_event, "", 0, 0

    def listener(self) -> promoting.PromoteCallbacks:
        return promoting.PromoteCallbacks(self._build, self._parity)

    def _tell(self, state: BuildState, **values: Any) -> None:
        counts = {"stage": self._stage, "done": self._done, "total": self._total}
        self._on_event(BuildEvent(state, **{**counts, **values}))

    def _build(self, plan: BuildPlan) -> AbstractContextManager[builds.BuildCallbacks]:
        self._total = len(plan.stages)

        def started(stage: PlannedStage) -> None:
            self._stage = stage.name
            self._tell("started")

        def finished(stage: PlannedStage, seconds: float, fresh: bool) -> None:
            self._done += 1
            self._tell("built" if fresh else "cached", stage=stage.name, seconds=seconds)

        def compiling(phase: str, done: int, steps: int) -> None:
            self._tell("compiling", done=done, total=steps)

        @contextmanager
        def whole() -> Iterator[builds.BuildCallbacks]:
            self._tell("planned")
            yield builds.BuildCallbacks(started, finished, lambda name: self._tell("waiting"), compiling)

        return whole()

    @contextmanager
    def _parity(self) -> Iterator[proofs.ParityCallbacks]:
        yield proofs.ParityCallbacks(lambda done: self._tell("verifying", stage="", done=done, total=proofs.IMAGES))
