"""From a spec to an engine: a plan of its stages, and running those whose inputs changed.

Knows specs, hashes and the store. Does not know what a stage depends on (`planning`), nor how it works: `stages` does,
and is imported only if one has to run, so that a plan needs neither torch nor onnx.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import coolsd_rt
from coolsd_rt.backends.description import Description
from coolsd_rt.errors import MissingExtra, UserError
from coolsd_rt.prompts import conditioner_files
from coolsd_rt.spec import LoadedSpec, Spec
from coolsd_rt.spec.messages import problems_of
from coolsd_rt.store import CachedStage, EngineFolder, EngineRecord, Store, engine_fingerprint, sha256_file
from coolsd_rt.store.atomic import check_folder, free_bytes
from coolsd_rt.store.fingerprint import tool_versions
from coolsd_rt.workflows.build.code import COMPILE, QUANTIZATION
from coolsd_rt.workflows.build.describe import describe
from coolsd_rt.workflows.build.estimate import MEASURED_ON, Amount, check_disk, total
from coolsd_rt.workflows.build.plan import COMPILED, PlannedStage, Planner, by_lengths
from coolsd_rt.workflows.build.record import describe_forms

TOOLS = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")
_PACKAGES = {"torch": "build", "onnx": "build", "onnxscript": "build", "safetensors": "build", "onnxruntime": "cpu"}

__all__ = [
    "BuildCallbacks",
    "BuildPlan",
    "Built",
    "PlannedStage",
    "build",
    "describe",
    "plan",
    "require_packages",
    "with_engine",
    "with_precision",
]


@dataclass(frozen=True)
class BuildPlan:
    """The stages that a build will run. Nothing has been written yet."""

    loaded: LoadedSpec
    out: Path
    stages: tuple[PlannedStage, ...]
    description: Description
    hashes: Mapping[str, str]
    tools: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        keys = {s.name: s.stage.key for s in self.stages}
        return engine_fingerprint(keys, self.loaded.spec.build_view())

    @property
    def folder(self) -> Path:
        return self.out / self.loaded.spec.name / self.fingerprint

    @property
    def gated(self) -> bool:
        """Whether `current` waits for parity: on a GPU kernels are chosen that nobody has seen on it."""
        return self.loaded.spec.engine.device == "cuda"

    @property
    def estimate(self) -> Amount:
        """What the stages that are not cached will take."""
        return total(s.amount for s in self.stages if not s.cached)

    @property
    def need_bytes(self) -> int:
        """Disk that has to be free before it begins."""
        return sum(s.need_bytes for s in self.stages if not s.cached)

    @property
    def fits(self) -> bool:
        """Whether the disk has that much."""
        return free_bytes(self.out) >= self.need_bytes

    def as_dict(self) -> dict[str, Any]:
        """JSON data for `--dry-run --json`."""
        return {
            "name": self.loaded.spec.name,
            "fingerprint": self.fingerprint,
            "folder": str(self.folder),
            "precision": self.loaded.spec.engine.precision,
            "stages": [s.as_dict() for s in self.stages],
            "estimate": {**self.estimate.as_dict(), "measured_on": MEASURED_ON},
            "free_bytes": free_bytes(self.out),
            "fits": self.fits,
        }


@dataclass(frozen=True)
class BuildCallbacks:
    """Who wants to hear of the work: a stage begins; it is done, after some seconds, run here or found cached;
    another process is at it and is waited for; a compiler has done so many of a phase's steps (in another thread)."""

    started: Callable[[PlannedStage], None] = lambda stage: None
    finished: Callable[[PlannedStage, float, bool], None] = lambda stage, seconds, fresh: None
    waiting: Callable[[str], None] = lambda stage: None
    compiling: Callable[[str, int, int], None] = lambda phase, done, steps: None


@dataclass(frozen=True)
class Built:
    """A finished build. `fresh` names the stages that this call ran."""

    plan: BuildPlan
    engine: EngineFolder
    fresh: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON data for `build --json`."""
        manifest = self.engine.manifest
        forms = describe_forms({name: stage.facts for name, stage in manifest.stages.items()})
        return {
            "name": manifest.name,
            "fingerprint": manifest.fingerprint,
            "folder": str(self.engine.folder),
            "precision": self.plan.loaded.spec.engine.precision,
            **({"int8": forms} if forms else {}),
            "seconds": round(self.seconds, 3),
            "stages": {s.name: "run" if s.name in self.fresh else "cached" for s in self.plan.stages},
            "bytes": sum(record.size for record in manifest.files.values()),
        }


def with_precision(loaded: LoadedSpec, precision: str | None) -> LoadedSpec:
    """The spec at another precision; None leaves it as it is."""
    return with_engine(loaded, precision=precision)


def with_engine(
    loaded: LoadedSpec,
    *,
    backend: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    option: str = "--{key} {value}",
) -> LoadedSpec:
    """The spec for another backend, device or precision; None leaves each as it is, but for the backend's own device.

    option: how a value was asked for, for errors.
    Raises UserError: a precision or device that the backend does not have.
    """
    asked = {k: v for k, v in (("backend", backend), ("device", device), ("precision", precision)) if v is not None}
    if not asked:
        return loaded
    data = loaded.spec.resolved()
    if backend is not None and device is None:
        del data["engine"]["device"]
    data["engine"] |= asked
    try:
        return replace(loaded, spec=Spec.model_validate(data))
    except ValidationError as error:
        first = problems_of(error, data)[0]
        what = " ".join(option.format(key=k, value=v) for k, v in asked.items())
        raise UserError(what, expected=first.expected, found=first.found, fix=first.fix) from error


def plan(loaded: LoadedSpec, out: Path) -> BuildPlan:
    """What a build of this spec would do. Reads headers and hashes files; runs nothing, writes nothing.

    Raises:
        UserError: weights that are missing, broken or do not belong together; a draft longer than the image.
    """
    check_folder(out)
    files = loaded.files
    description = describe(loaded)
    hashes = {key: sha256_file(path) for key, path in files.items()}
    tools = {"coolsd-rt": coolsd_rt.__version__, **tool_versions(TOOLS)}
    stages = Planner(loaded, description, hashes, tools, Store(out)).stages()
    return BuildPlan(loaded, out, stages, description, hashes, tools)


def require_packages(plan: BuildPlan) -> None:
    """Raise MissingExtra if a stage has to run and a package that stages run with is missing."""
    if all(stage.cached for stage in plan.stages):
        return
    for package, extra in _PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, extra, "building an engine")


def build(plan: BuildPlan, listener: BuildCallbacks | None = None) -> Built:
    """Run what is not cached, put the engine together, point `current` at it.

    Killed or failing at any moment, it leaves finished stages for the next time and no engine that looks whole.

    Raises:
        MissingExtra: a stage has to run, and torch, onnx or onnxruntime is missing.
        CoolsdError: a stage failed, a check did not hold, no space.
        UserError: a tensor of the weights does not fit.
    """
    listener = listener or BuildCallbacks()
    begun, store, spec = time.perf_counter(), Store(plan.out), plan.loaded.spec
    require_packages(plan)
    check_disk(plan.out, plan.need_bytes)
    if spec.engine.backend in COMPILED:
        from coolsd_rt.workflows.build.compile import check_fits

        check_fits(plan.loaded, plan.description)
    store.sweep()
    run = _Runner(plan, listener.compiling)
    done: dict[str, CachedStage] = {}
    for planned in plan.stages:
        listener.started(planned)
        start = time.perf_counter()
        result = store.stage(
            planned.stage,
            lambda folder, name=planned.name: run(name, folder, done),  # type: ignore[misc]
            need_bytes=planned.need_bytes,
            on_wait=listener.waiting,
        )
        done[planned.name] = result
        listener.finished(planned, time.perf_counter() - start, result.fresh)
    record = EngineRecord(
        name=spec.name,
        spec=spec.resolved(),
        build_view=spec.build_view(),
        tools=plan.tools,
        contract=plan.description.as_dict(),
        spec_file=plan.loaded.path,
    )
    engine = store.assemble(
        list(done.values()),
        record,
        internal=[s.name for s in plan.stages if not s.ships],
        current=not plan.gated,
        on_wait=listener.waiting,
    )
    fresh = tuple(name for name, stage in done.items() if stage.fresh)
    return Built(plan, engine, fresh, time.perf_counter() - begun)


class _Runner:
    """Runs stages by name; loads torch, and each weights file, with the first stage that needs it."""

    def __init__(self, plan: BuildPlan, compiling: Callable[[str, int, int], None]) -> None:
        self._plan, self._progress = plan, compiling
        self._sources: Any = None

    def __call__(self, name: str, folder: Path, done: Mapping[str, CachedStage]) -> Mapping[str, Any]:
        from coolsd_rt.workflows.build import stages

        if self._sources is None:
            loaded, description = self._plan.loaded, self._plan.description
            engine = loaded.spec.engine
            self._sources = stages.BuildInputs(
                loaded.files,
                self._plan.hashes,
                description,
                engine.precision,
                loaded.spec.image.neighbours,
                conditioner_files(loaded.spec.condition),
                by_lengths(engine, description),
                engine.invariant,
                engine.quantization,
            )
        if name == QUANTIZATION:
            from coolsd_rt.workflows.build.quantization import quantization

            return quantization(self._sources, folder)
        if QUANTIZATION in done:
            self._sources.forms = done[QUANTIZATION].facts[QUANTIZATION]
        if name.startswith(COMPILE):
            from coolsd_rt.workflows.build.compile import compile_graph

            graph = name.removeprefix(COMPILE)
            source = done[graph].folder / self._plan.description.graphs[graph].file
            times, spec = self._plan.out / ".cache" / "tensorrt-times", self._plan.loaded.spec
            return compile_graph(graph, source, folder, spec, self._plan.description, self._progress, times)
        return stages.PRODUCERS[name](self._sources, folder)
