"""Which stages a spec has, and what each depends on.

    backend onnxruntime
    condition   words -> prefix, vocabulary     target weights, vocabulary (and those of a draft model of its own)
    target      one step of the target          target weights, precision
    draft       one step of it, and an EAGLE head fused  draft and target weights, draft length, precision
    image       codes -> pixels, neighbours     tokenizer weights, number of neighbours

    backend torch
    weights     the networks' files             their hashes
    prompts     the vocabulary                  it
    codes       neighbours                      tokenizer weights, number of neighbours

Knows specs, hashes and the store. Does not know how a stage works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coolsd_rt.backends.description import Description
from coolsd_rt.spec import LoadedSpec
from coolsd_rt.spec.model import EngineOptions
from coolsd_rt.store import Stage, Store

_HEADROOM = 1.5  # disk a stage may take, over the size of its weights in float32


def by_lengths(engine: EngineOptions, description: Description) -> bool:
    """Whether attention goes by lengths instead of a mask: for ONNX Runtime's CUDA provider, without padding."""
    return engine.backend == "onnxruntime" and engine.device == "cuda" and not description.dims.padded


@dataclass(frozen=True)
class PlannedStage:
    """A stage, and whether its result is there already. ships: its files are part of the engine."""

    stage: Stage
    cached: bool
    need_bytes: int
    ships: bool = True

    @property
    def name(self) -> str:
        return self.stage.name

    def as_dict(self) -> dict[str, Any]:
        return {"stage": self.name, "key": self.stage.key, "cached": self.cached, "inputs": self.stage.inputs}


@dataclass(frozen=True)
class Planner:
    """All that the keys of stages are made of."""

    loaded: LoadedSpec
    description: Description
    hashes: Mapping[str, str]
    tools: Mapping[str, str]
    code: str
    store: Store

    def stages(self) -> tuple[PlannedStage, ...]:
        """The stages of the spec's backend, in the order they run."""
        if self.loaded.spec.engine.backend == "torch":
            return self._networks()
        return self._graphs()

    def _networks(self) -> tuple[PlannedStage, ...]:
        spec, files = self.loaded.spec, self.loaded.files
        weights = tuple(key for key in files if key.endswith(".weights"))
        return (
            self._make("weights", weights, {}),
            self._make("prompts", ("condition.vocab",), {"condition.kind": spec.condition.kind}),
            self._make("codes", ("image.weights",), {"image.neighbours": spec.image.neighbours}),
        )

    def _graphs(self) -> tuple[PlannedStage, ...]:
        spec, kind = self.loaded.spec, self.description.dims.draft_kind
        precision = {
            "engine.precision": spec.engine.precision, "dtype": self.description.dtype,
            "lengths": by_lengths(spec.engine, self.description),
        }  # fmt: skip
        models = {"target.model": spec.target.model}
        read = ("condition.vocab", "target.weights", *(("draft.weights",) if kind == "model" else ()))
        draft = {
            "draft.model": spec.draft.model, **models, "draft.length": spec.draft.length, **precision,
            "fused": self.description.fused,
        }  # fmt: skip
        image = {
            "image.tokenizer": spec.image.tokenizer, "image.neighbours": spec.image.neighbours,
            "grid": int(self.description.dims.tokens**0.5),
        }  # fmt: skip
        return (
            self._make("condition", read, {"condition.kind": spec.condition.kind, "dtype": self.description.dtype}),
            self._make("target", ("target.weights",), {**models, **precision}),
            *([] if kind == "none" else [self._make("draft", ("draft.weights", "target.weights"), draft)]),
            self._make("image", ("image.weights",), image),
        )

    def _make(self, name: str, keys: tuple[str, ...], values: Mapping[str, Any]) -> PlannedStage:
        used = {key: self.hashes[key] for key in keys}
        stage = Stage(name, files=used, spec=values, tools=self.tools, code=self.code)
        need = int(_HEADROOM * 2 * sum(self.loaded.files[key].stat().st_size for key in keys))
        return PlannedStage(stage, self.store.cached(stage) is not None, need)
