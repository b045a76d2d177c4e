"""From a spec to an engine: which stages there are, what each depends on, and running those whose inputs changed.

    condition   words -> prefix                 target weights, vocabulary (and those of a draft model of its own)
    target      one step of the target          target weights, precision
    draft       one step of it, and an EAGLE head fused  draft and target weights, draft length, precision
    image       codes -> pixels, neighbours     tokenizer weights, number of neighbours

Knows specs, hashes and the store. Does not know how a stage works: `stages` does, and is imported only if one has to
run, so that a plan needs neither torch nor onnx.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import coolsd_rt
import coolsd_rt.contract
import coolsd_rt.export
import coolsd_rt.law.tolerance
import coolsd_rt.models
from coolsd_rt.backends.description import Description
from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import MissingExtra, UserError
from coolsd_rt.models.conditions import WordVocabulary
from coolsd_rt.models.header import read_config, size_of
from coolsd_rt.spec import LoadedSpec, Spec
from coolsd_rt.store import CachedStage, EngineFolder, Stage, Store, engine_fingerprint, hash_sources, sha256_file
from coolsd_rt.store.atomic import check_folder
from coolsd_rt.store.fingerprint import tool_versions

TOOLS = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")
_PACKAGES = {"torch": "build", "onnx": "build", "onnxscript": "build", "safetensors": "build", "onnxruntime": "cpu"}
_HEADROOM = 1.5  # disk a stage may take, over the size of its weights in float32


@dataclass(frozen=True)
class PlannedStage:
    """A stage, and whether its result is there already."""

    stage: Stage
    cached: bool
    need_bytes: int

    @property
    def name(self) -> str:
        return self.stage.name

    def as_dict(self) -> dict[str, Any]:
        return {"stage": self.name, "key": self.stage.key, "cached": self.cached, "inputs": self.stage.inputs}


@dataclass(frozen=True)
class Plan:
    """All that a build will do. Nothing has been written yet."""

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

    def as_dict(self) -> dict[str, Any]:
        """JSON data for `--dry-run --json`."""
        return {
            "name": self.loaded.spec.name,
            "fingerprint": self.fingerprint,
            "folder": str(self.folder),
            "precision": self.loaded.spec.engine.precision,
            "stages": [s.as_dict() for s in self.stages],
        }


@dataclass(frozen=True)
class Listener:
    """Who wants to hear of the work: a stage begins; it is done, after some seconds, run here or found cached;
    another process is at it and is waited for."""

    started: Callable[[PlannedStage], None] = lambda stage: None
    finished: Callable[[PlannedStage, float, bool], None] = lambda stage, seconds, fresh: None
    waiting: Callable[[str], None] = lambda stage: None


@dataclass(frozen=True)
class Built:
    """A finished build. `fresh` names the stages that this call ran."""

    plan: Plan
    engine: EngineFolder
    fresh: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON data for `build --json`."""
        manifest = self.engine.manifest
        return {
            "name": manifest.name,
            "fingerprint": manifest.fingerprint,
            "folder": str(self.engine.folder),
            "precision": self.plan.loaded.spec.engine.precision,
            "seconds": round(self.seconds, 3),
            "stages": {s.name: "run" if s.name in self.fresh else "cached" for s in self.plan.stages},
            "bytes": sum(record.size for record in manifest.files.values()),
        }


def with_precision(loaded: LoadedSpec, precision: str | None) -> LoadedSpec:
    """The spec at another precision; None leaves it as it is."""
    if precision is None:
        return loaded
    data = loaded.spec.resolved()
    data["engine"]["precision"] = precision
    return replace(loaded, spec=Spec.model_validate(data))


def plan(loaded: LoadedSpec, out: Path) -> Plan:
    """What a build of this spec would do. Reads headers and hashes files; runs nothing, writes nothing.

    Raises:
        UserError: weights that are missing, broken or do not belong together; a draft longer than the image.
    """
    check_folder(out)
    files = loaded.files
    description = describe(loaded)
    hashes = {key: sha256_file(path) for key, path in files.items()}
    tools = {"coolsd-rt": coolsd_rt.__version__, **tool_versions(TOOLS)}
    code = code_digest()
    spec, store = loaded.spec, Store(out)

    def make(name: str, keys: tuple[str, ...], values: Mapping[str, Any], after: Mapping[str, str]) -> PlannedStage:
        used = {key: hashes[key] for key in keys}
        stage = Stage(name, files=used, spec=values, tools=tools, code=code, after=after)
        need = int(_HEADROOM * 2 * sum(files[key].stat().st_size for key in keys))
        return PlannedStage(stage, store.cached(stage) is not None, need)

    precision, length = {"engine.precision": spec.engine.precision}, {"draft.length": spec.draft.length}
    models = {"target.model": spec.target.model}
    kind = description.dims.draft_kind
    read = ("condition.vocab", "target.weights", *(("draft.weights",) if kind == "model" else ()))
    words = make("condition", read, {"condition.kind": spec.condition.kind}, {})
    target = make("target", ("target.weights",), {**models, **precision}, {})
    draft_values = {"draft.model": spec.draft.model, **models, **length, **precision}
    drafts = [] if kind == "none" else [make("draft", ("draft.weights", "target.weights"), draft_values, {})]
    image_values = {
        "image.tokenizer": spec.image.tokenizer, "image.neighbours": spec.image.neighbours, "grid": _grid(description)
    }  # fmt: skip
    image = make("image", ("image.weights",), image_values, {})
    return Plan(loaded, out, (words, target, *drafts, image), description, hashes, tools)


def build(plan: Plan, listener: Listener | None = None) -> Built:
    """Run what is not cached, put the engine together, point `current` at it.

    Killed or failing at any moment, it leaves finished stages for the next time and no engine that looks whole.

    Raises:
        MissingExtra: a stage has to run, and torch, onnx or onnxruntime is missing.
        CoolsdError: a stage failed, a check did not hold, no space.
        UserError: a tensor of the weights does not fit.
    """
    listener = listener or Listener()
    begun, store, spec = time.perf_counter(), Store(plan.out), plan.loaded.spec
    store.sweep()
    run = _Runner(plan)
    done: list[CachedStage] = []
    for planned in plan.stages:
        listener.started(planned)
        start = time.perf_counter()
        result = store.stage(
            planned.stage,
            lambda folder, name=planned.name: run(name, folder),  # type: ignore[misc]
            need_bytes=planned.need_bytes,
            on_wait=listener.waiting,
        )
        done.append(result)
        listener.finished(planned, time.perf_counter() - start, result.fresh)
    engine = store.assemble(
        done,
        name=spec.name,
        spec=spec.resolved(),
        build_view=spec.build_view(),
        tools=plan.tools,
        contract=plan.description.as_dict(),
        spec_file=plan.loaded.path,
        on_wait=listener.waiting,
    )
    fresh = tuple(s.record.name for s in done if s.fresh)
    return Built(plan, engine, fresh, time.perf_counter() - begun)


class _Runner:
    """Runs stages by name; loads torch, and each weights file, with the first stage that needs it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sources: Any = None

    def __call__(self, name: str, folder: Path) -> Mapping[str, Any]:
        for package, extra in _PACKAGES.items():
            if importlib.util.find_spec(package) is None:
                raise MissingExtra(package, extra, "building an engine")
        from coolsd_rt.workflows import stages

        if self._sources is None:
            loaded = self._plan.loaded
            self._sources = stages.Sources(
                loaded.files, self._plan.hashes, self._plan.description, loaded.spec.engine.precision,
                loaded.spec.image.neighbours,
            )  # fmt: skip
        return stages.PRODUCERS[name](self._sources, folder)


def code_digest() -> str:
    """One digest of the code that makes graphs: the networks, the exporter, the contract, the stages."""
    rooms = [Path(str(m.__file__)).parent for m in (coolsd_rt.export, coolsd_rt.models)]
    here = Path(__file__).parent
    law = Path(coolsd_rt.law.tolerance.__file__)
    return hash_sources([*rooms, Path(coolsd_rt.contract.__file__), law, here / "stages.py", here / "smoke.py"])


def describe(loaded: LoadedSpec) -> Description:
    """The engine's sizes, from the headers of its weights.

    Raises UserError: files that are missing, broken, or not made for each other; a draft longer than the image.
    """
    names = ("target.weights", "draft.weights", "image.weights")
    paths = {key: loaded.files[key] for key in names if key in loaded.files}
    configs = {key: read_config(path) for key, path in paths.items()}

    def size(key: str, name: str) -> int:
        return size_of(paths[key], configs[key], name)

    def of(key: str) -> tuple[int, int, int]:
        dim, heads = size(key, "dim"), size(key, "heads")
        return dim, heads, dim // heads

    grid = size("target.weights", "grid")
    loaded.check_length(grid * grid)
    dim, heads, head_dim = of("target.weights")
    draft = "draft.weights" in configs
    draft_dim, draft_heads, draft_head_dim = of("draft.weights") if draft else (0, 0, 0)
    own = draft and loaded.spec.draft.model != "eagle"
    dims = ModelDims(
        vocab=size("target.weights", "vocab"),
        dim=dim,
        layers=size("target.weights", "layers"),
        heads=heads,
        head_dim=head_dim,
        prefix=size("target.weights", "prefix"),
        tokens=grid * grid,
        draft_layers=configs["draft.weights"].get("layers", 1) if draft else 0,
        draft_heads=draft_heads,
        draft_head_dim=draft_head_dim,
        draft_dim=draft_dim if own else 0,
    )
    vocabulary = WordVocabulary.load(loaded.files["condition.vocab"])
    _same(loaded, "condition.vocab", "words", len(vocabulary.words), size("target.weights", "words"))
    _same(loaded, "condition.vocab", "prefix", vocabulary.prefix, dims.prefix)
    _same(loaded, "image.weights", "codebook_size", size("image.weights", "codebook_size"), dims.vocab)
    if own:
        for name in ("vocab", "grid", "prefix", "words"):
            _same(loaded, "draft.weights", name, size("draft.weights", name), size("target.weights", name))
    elif draft:
        _same(loaded, "draft.weights", "dim", draft_dim, dims.dim)
    multipliers = configs["image.weights"].get("multipliers")
    if not isinstance(multipliers, list) or not multipliers:
        what = f"{paths['image.weights']}: config: multipliers"
        raise UserError(what, expected="a list of widths", found=repr(multipliers))
    return Description(dims, loaded.spec.draft.length, grid * 2 ** (len(multipliers) - 1))


def _same(loaded: LoadedSpec, key: str, what: str, found: int, wanted: int) -> None:
    if found != wanted:
        fix = "name files that were trained together"
        raise loaded.error(key, f"{what} {wanted}, as the target has", f"{found} in {loaded.files[key]}", fix)


def _grid(description: Description) -> int:
    return int(description.dims.tokens**0.5)
