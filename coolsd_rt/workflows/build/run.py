"""Builds an engine from a spec: plans the stages, then runs those whose inputs changed.

Knows specs, hashes and the store. Does not know what a stage depends on (`plan` does) or how it works (`stages` does).
`stages` is imported only if a stage has to run, so that planning needs neither torch nor onnx.
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
from coolsd_rt.workflows.build.plan import COMPILED, PlannedStage, Planner, by_lengths, on_cpu
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
    """The stages that a build will run. Making a plan writes nothing.

    Attributes:
        loaded: the spec and its files.
        out: folder for engines.
        stages: all stages, in order.
        description: the sizes of the engine.
        hashes: file key to SHA-256.
        tools: package name to version.
    """

    loaded: LoadedSpec
    out: Path
    stages: tuple[PlannedStage, ...]
    description: Description
    hashes: Mapping[str, str]
    tools: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the engine is made from; the name of its folder."""
        keys = {s.name: s.stage.key for s in self.stages}
        return engine_fingerprint(keys, self.loaded.spec.build_view())

    @property
    def folder(self) -> Path:
        """The engine's folder, OUT/NAME/FINGERPRINT."""
        return self.out / self.loaded.spec.name / self.fingerprint

    @property
    def gated(self) -> bool:
        """Whether promotion requires parity: a GPU build selects kernels that were not yet verified on that GPU."""
        return self.loaded.spec.engine.device == "cuda"

    @property
    def estimate(self) -> Amount:
        """Estimated cost of the stages that are not cached."""
        return total(s.amount for s in self.stages if not s.cached)

    @property
    def need_bytes(self) -> int:
        """Bytes of disk that must be free before the build starts."""
        return sum(s.need_bytes for s in self.stages if not s.cached)

    @property
    def fits(self) -> bool:
        """Whether the disk has `need_bytes` free."""
        return free_bytes(self.out) >= self.need_bytes

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data for `--dry-run --json`."""
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
    """Callbacks that report the progress of a build.

    Attributes:
        started: called with a stage when it begins.
        finished: called with a stage, its seconds, and whether this call ran it (False: found in the cache).
        waiting: called with a stage's name while another process runs that stage.
        compiling: called with phase, steps done and steps in total, from another thread.
    """

    started: Callable[[PlannedStage], None] = lambda stage: None
    finished: Callable[[PlannedStage, float, bool], None] = lambda stage, seconds, fresh: None
    waiting: Callable[[str], None] = lambda stage: None
    compiling: Callable[[str, int, int], None] = lambda phase, done, steps: None


@dataclass(frozen=True)
class Built:
    """A finished build. `fresh` names the stages that this call ran; `seconds` is wall time."""

    plan: BuildPlan
    engine: EngineFolder
    fresh: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data for `build --json`."""
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
    """Return the spec with another precision; None keeps the spec's."""
    return with_engine(loaded, precision=precision)


def with_engine(
    loaded: LoadedSpec,
    *,
    backend: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    option: str = "--{key} {value}",
) -> LoadedSpec:
    """Return the spec with another backend, device or precision; None keeps the spec's value.

    A new backend without a device selects that backend's default device. option: how the user typed a value.
    Raises UserError if the backend does not support the precision or device.
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
    """Plan the build of a spec: read headers and hash files, run no stage, write nothing.

    Raises UserError if weights are missing, broken or do not fit each other, or the draft is longer than the image."""
    check_folder(out)
    files = loaded.files
    description = describe(loaded)
    hashes = {key: sha256_file(path) for key, path in files.items()}
    tools = {"coolsd-rt": coolsd_rt.__version__, **tool_versions(TOOLS)}
    stages = Planner(loaded, description, hashes, tools, Store(out)).stages()
    return BuildPlan(loaded, out, stages, description, hashes, tools)


def require_packages(plan: BuildPlan) -> None:
    """Raise MissingExtra if a stage has to run and a package that it needs is not installed."""
    if all(stage.cached for stage in plan.stages):
        return
    for package, extra in _PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, extra, "building an engine")


def build(plan: BuildPlan, listener: BuildCallbacks | None = None) -> Built:
    """Run the stages that are not cached, assemble the engine, and promote it unless parity has to pass first.

    A build that is killed or fails leaves its finished stages in the cache and no incomplete engine.

    Raises:
        MissingExtra: a stage has to run, and torch, onnx or onnxruntime is missing.
        CoolsdError: a stage or a check failed, or the disk is full.
        UserError: a tensor of the weights has a wrong shape.
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
    """Runs stages by name. Imports torch and reads each weights file when a stage first needs it."""

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
                loaded.spec.neighbours,
                conditioner_files(loaded.spec.condition),
                by_lengths(engine, description),
                on_cpu(engine),
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
