"""The stages of a spec, and the inputs that each stage depends on.

    stage       result                                      depends on

    backend onnxruntime
    quantization  forms of int8 matrices                    shapes, draft length, processor (int8 on a CPU, not `block`)
    condition   prompt ids -> prefix; prompt files          target weights, condition files, a draft model's weights
    target      one step of the target                      target weights, precision
    draft       one step; for EAGLE also all L steps        draft and target weights, draft length, precision
    image       codes -> pixels; neighbours of codes        tokenizer weights, number of neighbours

    backends tensorrt and tensorrt-rtx: the stages above, and
    compile_*   a graph to an engine                        its stage, profiles, package and GPU
    The graphs stay in the cache; the engine holds the compiled files, the prompt files and the neighbours of codes.

    backend torch
    weights     the networks' files                         their hashes
    prompts     the files that read prompts                 condition files, the target's unconditional embedding
    codes       neighbours of codes                         tokenizer weights, number of neighbours

Knows specs, hashes and the store. Does not know how a stage works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from coolsd_rt.backends.description import Description
from coolsd_rt.backends.tensorrt.package import local_gpu
from coolsd_rt.prompts import conditioner_files
from coolsd_rt.spec import LoadedSpec
from coolsd_rt.spec.engine import EngineOptions
from coolsd_rt.store import Stage, Store
from coolsd_rt.store.fingerprint import tool_versions
from coolsd_rt.workflows.build.code import COMPILE, QUANTIZATION, code_digest
from coolsd_rt.workflows.build.estimate import Amount, SpecSizes
from coolsd_rt.workflows.build.processor import processor

COMPILED = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_cu13"}
"""Backends that compile their graphs, and the distribution with their compiler."""

_HEADROOM = 1.02  # disk that a stage may take, relative to its estimate


def by_lengths(engine: EngineOptions, description: Description) -> bool:
    """Whether attention takes lengths instead of a mask: ONNX Runtime's CUDA provider, prefixes without padding."""
    return engine.backend == "onnxruntime" and engine.device == "cuda" and not description.dims.padded


def on_cpu(engine: EngineOptions) -> bool:
    """Whether graphs get the forms for ONNX Runtime's CPU provider: attention by single queries, the image decoder."""
    return engine.backend == "onnxruntime" and engine.device == "cpu"


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a build plan.

    Attributes:
        stage: its name, key and inputs.
        cached: whether the cache has its result.
        amount: estimated cost of running it.
        ships: whether its files become part of the engine.
    """

    stage: Stage
    cached: bool
    amount: Amount
    ships: bool = True

    @property
    def name(self) -> str:
        """The stage's name, such as "target"."""
        return self.stage.name

    @property
    def need_bytes(self) -> int:
        """Bytes of disk that must be free before the stage runs."""
        return int(_HEADROOM * self.amount.disk)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {
            "stage": self.name, "key": self.stage.key, "cached": self.cached, "inputs": self.stage.inputs,
            "estimate": self.amount.as_dict(),
        }  # fmt: skip


@dataclass(frozen=True)
class Planner:
    """Computes the stages of a spec and their keys.

    Attributes:
        loaded: the spec and its files.
        description: the sizes of the engine.
        hashes: file key to SHA-256.
        tools: package name to version, of the packages that stages use.
        store: the cache of finished stages.
    """

    loaded: LoadedSpec
    description: Description
    hashes: Mapping[str, str]
    tools: Mapping[str, str]
    store: Store

    def stages(self) -> tuple[PlannedStage, ...]:
        """Return the stages of the spec's backend, in the order in which they run."""
        backend = self.loaded.spec.engine.backend
        if backend == "torch":
            return self._networks()
        return self._compiled() if backend in COMPILED else self._graphs()

    def _compiled(self) -> tuple[PlannedStage, ...]:
        graphs = [planned for planned in self._graphs() if planned.name in self.description.graphs]
        gpu = local_gpu()
        values = {
            "backend": self.loaded.spec.engine.backend, "max_batch": self.loaded.spec.engine.max_batch,
            "length": self.description.draft_length, "precision": self.loaded.spec.engine.precision,
            "capability": gpu.capability if gpu else "any",
        }  # fmt: skip
        package = COMPILED[self.loaded.spec.engine.backend]
        tools = {**self.tools, **tool_versions([package, "polygraphy"])}
        engines = []
        for source in graphs:
            before = {source.name: source.stage.key}
            stage = Stage(COMPILE + source.name, spec=values, tools=tools, code=code_digest(COMPILE), after=before)
            amount = self._sizes.stage(stage.name)
            engines.append(PlannedStage(stage, self.store.cached(stage) is not None, amount))
        return (*(replace(g, ships=False) for g in graphs), self._prompts(), *self._codes(), *engines)

    def _networks(self) -> tuple[PlannedStage, ...]:
        weights = tuple(key for key in self.loaded.files if key.endswith(".weights"))
        return (
            self._make("weights", weights, {}),
            self._prompts(),
            *self._codes(),
        )

    def _prompts(self) -> PlannedStage:
        keys = self._condition_files
        read = (*keys, "target.weights") if self.loaded.spec.condition.kind == "t5" else keys
        return self._make("prompts", read, {"condition": self._condition})

    @property
    def _condition_files(self) -> tuple[str, ...]:
        return tuple(conditioner_files(self.loaded.spec.condition).values())

    @property
    def _condition(self) -> dict[str, Any]:
        """The spec's condition section without file names: the contents of the files count, their names do not."""
        names = {key.removeprefix("condition.") for key in self._condition_files}
        return self.loaded.spec.condition.model_dump(mode="json", exclude=names)

    def _codes(self) -> tuple[PlannedStage, ...]:
        spec = self.loaded.spec
        if spec.writes == "image":
            return (self._make("codes", ("image.weights",), {"image.neighbours": spec.neighbours}),)
        if not spec.neighbours:
            return ()
        return (self._make("codes", ("target.weights",), {"text.neighbours": spec.neighbours}),)

    def _graphs(self) -> tuple[PlannedStage, ...]:
        spec, kind = self.loaded.spec, self.description.dims.draft_kind
        precision: dict[str, Any] = {
            "engine.precision": spec.engine.precision, "dtype": self.description.dtype,
            "lengths": by_lengths(spec.engine, self.description), "on_cpu": on_cpu(spec.engine),
        }  # fmt: skip
        if self.description.tree:
            precision["tree"] = True
        if self._chooses:
            precision["engine.quantization"] = spec.engine.quantization
        models = {"target.model": spec.target.model}
        read = (*self._condition_files, "target.weights", *(("draft.weights",) if kind == "model" else ()))
        draft = {
            "draft.model": spec.draft.model, **models, "draft.length": spec.draft.length, **precision,
            "propose": self.description.propose,
        }  # fmt: skip
        chosen = [self._quantization()] if self._chooses else []
        after = {planned.name: planned.stage.key for planned in chosen}
        return (
            *chosen,
            self._make("condition", read, {"condition": self._condition, "dtype": self.description.dtype}),
            self._make("target", ("target.weights",), {**models, **precision}, after),
            *([] if kind == "none" else [self._make("draft", ("draft.weights", "target.weights"), draft, after)]),
            *self._output(),
        )

    def _output(self) -> tuple[PlannedStage, ...]:
        """What turns tokens into an image; a text needs nothing but its tokenizer."""
        spec = self.loaded.spec
        if spec.image is None:
            return self._codes()
        image = {
            "image.tokenizer": spec.image.tokenizer, "image.neighbours": spec.image.neighbours,
            "side": self.description.side, "forced": self.description.forced is not None, "on_cpu": on_cpu(spec.engine),
        }  # fmt: skip
        return (self._make("image", ("image.weights",), image),)

    @property
    def _chooses(self) -> bool:
        """Whether int8 matrices have a choice of forms."""
        engine = self.loaded.spec.engine
        return on_cpu(engine) and engine.precision == "int8" and engine.quantization != "block"

    def _quantization(self) -> PlannedStage:
        """Weights do not matter to it, but for their shapes: trained anew, a network keeps its forms."""
        values = {
            "engine.quantization": self.loaded.spec.engine.quantization, "length": self.description.draft_length,
            "propose": self.description.propose, "processor": processor(), "shapes": self._sizes.digest,
        }  # fmt: skip
        return self._make(QUANTIZATION, (), values)

    def _make(
        self, name: str, keys: tuple[str, ...], values: Mapping[str, Any], after: Mapping[str, str] | None = None
    ) -> PlannedStage:
        used = {key: self.hashes[key] for key in keys}
        stage = Stage(name, files=used, spec=values, tools=self.tools, code=code_digest(name), after=after or {})
        return PlannedStage(stage, self.store.cached(stage) is not None, self._sizes.stage(name))

    @cached_property
    def _sizes(self) -> SpecSizes:
        return SpecSizes(self.loaded, self.description)
