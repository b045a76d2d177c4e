"""`coolsd_rt.build`: builds a spec's engine from Python, verifies it if required, and promotes it.

Knows what a caller may ask for and hears of. Does not know stages (`build`), nor what decides promotion (`promote`).
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
    """One step of a build.

    Attributes:
        state: "planned": first of all, `total` stages. "started", "waiting" (another build is at it), "compiling",
            "cached", "built": of one stage. "verifying": parity of an engine for a GPU.
        stage: the stage's name, or "" where it is about none.
        done: stages finished; in "compiling" steps of the compiler's phase; in "verifying" images compared.
        total: of `done`.
        seconds: that the stage took, in "cached" and "built".
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
        folder: the engine's own folder, OUT/NAME/FINGERPRINT; `Pipeline.load` takes it.
        name: of the spec.
        fingerprint: of everything that the engine was made from.
        fresh: stages that this call ran; the others were cached.
        seconds: wall time of the build, parity not included.
        current: whether OUT/NAME means this engine now. An engine for a GPU has to pass parity first.
        passed: whether it passes parity; None where that is not asked (no GPU's engine), or no GPU is here to ask.
        failures: a line for each threshold of parity that was missed.
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
    """Arguments of `build`, checked."""

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
    """Build a spec's engine as the command `coolsd-rt build` does. Stages that did not change are not run again.

    Args:
        spec: the spec's file.
        out: folder for engines; the engine lands in OUT/NAME/FINGERPRINT.
        precision, backend, device: in the place of the spec's `engine` values.
        on_event: called with each `BuildEvent`; "compiling" comes from another thread.

    Raises:
        UserError: a spec, a file of weights or an argument that is wrong.
        MissingExtra: a stage has to run, and a package for it is not installed.
        CoolsdError: a stage failed, or there is no space.
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
    """What a build and a parity run tell, as events."""

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
