"""A build's TensorRT engines on a GPU: the models that `device.engine.DeviceEngine` decodes with.

Knows the four models, their caches and the inputs that stay fixed for a batch. Does not know the mathematics of the
loop, nor execution contexts (`model`). It has not run on a GPU; the tests use a fake runtime. Legend as in
`coolsd_rt.contract`.

`TrtSteps` serves the device loop: a step enqueues work and returns its output memory, which the next step of the same S
overwrites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from coolsd_rt.backends.description import Description, no_images
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.backends.tensorrt.facts import Facts, check_capacity, check_facts
from coolsd_rt.backends.tensorrt.log import make_log
from coolsd_rt.backends.tensorrt.model import LESS, Scratch, TrtModel, TrtStep, make_runtime
from coolsd_rt.backends.tensorrt.package import package, require_gpu
from coolsd_rt.backends.tensorrt.profiles import parts
from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import CoolsdError
from coolsd_rt.store import VerifiedEngine
from coolsd_rt.store.manifest import rebuild_hint

STAGES = "compile_"  # prefix of the stages whose facts describe engines, by graph
FILE = "{}.engine"


def load(verified: VerifiedEngine, options: LoadOptions) -> TrtEngine:
    """Load all engines of a verified build.

    Each is compared with this machine, then its hash is checked, then it is parsed.

    Raises:
        MissingExtra: the package it was built with is not installed.
        CoolsdError: no GPU, or too little memory on it; an engine for another version, or another GPU; one that
            TensorRT refuses.
    """
    manifest = verified.manifest
    description = Description.from_dict(manifest.contract)
    rebuild = rebuild_hint(verified.engine.folder, manifest)
    compiled = [entry.facts for name, entry in manifest.stages.items() if name.startswith(STAGES)]
    facts = {name: found for entry in compiled for name, found in entry.items()}
    flavour = str(manifest.spec.get("engine", {}).get("backend", ""))
    return load_engines(description, facts, verified.read, flavour, rebuild)


def load_engines(
    description: Description,
    facts: Mapping[str, Any],
    read: Callable[[str], bytes],
    flavour: str,
    rebuild: str,
    device: torch.device | None = None,
) -> TrtEngine:
    """Load the engines of a description. Raises as `load`.

    facts: the facts a build recorded, by graph.
    read: returns the contents of a file whose hash was checked.
    rebuild: what to type to build again, for errors.
    device: None is torch's current GPU.
    """
    chosen, gpu = package(flavour), require_gpu()
    trt = chosen.load()
    known: dict[str, Facts] = {}
    for name in description.graphs:
        if name not in facts:
            raise CoolsdError("an engine of TensorRT", expected=f"the graph {name}", found="none", fix=rebuild)
        known[name] = Facts.from_dict(facts[name], name)
        check_facts(known[name], name, flavour=flavour, version=str(trt.__version__), gpu=gpu, rebuild=rebuild)
    log = make_log(trt)
    runtime = make_runtime(trt, log)
    scratch = Scratch(device or torch.device("cuda", torch.cuda.current_device()))
    try:
        models = {
            name: TrtModel(trt, log, runtime, read(FILE.format(name)), record.contract, known[name], name, scratch)
            for name, record in description.graphs.items()
        }
    except torch.cuda.OutOfMemoryError as error:  # raised by torch; TensorRT reports it in its log
        found = str(error).strip().splitlines()[0]
        raise CoolsdError(
            "engines of TensorRT", expected="GPU memory for their scratch buffers", found=found, fix=LESS
        ) from None
    return TrtEngine(description, models, known["target"], rebuild)


class TrtEngine:
    """`device.engine.DeviceBackend` on TensorRT. Arrays are torch tensors on the GPU, features of the graphs' dtype."""

    def __init__(self, description: Description, models: Mapping[str, TrtModel], facts: Facts, rebuild: str) -> None:
        """Hold the models. facts: those of the target."""
        self._description, self._models, self._facts, self._rebuild = description, models, facts, rebuild
        self._bound: dict[tuple[str, int], TrtStep] = {}  # steps of condition and image, by number of rows or images

    @property
    def dims(self) -> ModelDims:
        """Sizes of the engine."""
        return self._description.dims

    @property
    def device(self) -> torch.device:
        """The GPU that the models run on."""
        return self._models["target"].device

    @property
    def draft_length(self) -> int:
        """Draft length of the spec that was built."""
        return self._description.draft_length

    def array(self, data: Any, dtype: str) -> Tensor:
        """Copy host data to the device, as this dtype."""
        return torch.as_tensor(data, dtype=getattr(torch, dtype), device=self.device)

    def like(self) -> Tensor:
        """Return an empty tensor [0, C] of the features' dtype and device."""
        spec = next(s for s in self._models["target"].contract.outputs if s.name == "features")
        return torch.empty(0, self.dims.dim, dtype=getattr(torch, spec.dtype), device=self.device)

    def encode_condition(self, condition: Any) -> Tensor:
        """Return the prefix [R, W, C] of a condition: ids int64 [R, W], or text features."""
        return torch.cat(self._batches("condition", "R", condition))

    def decode_images(self, codes: Any) -> NDArray[Any]:
        """Decode codes int64 [M, tokens] to pixels uint8 [M, side, side, 3], on the host."""
        if "image" not in self._models:
            raise no_images()
        return torch.cat([pixels.cpu() for pixels in self._batches("image", "M", codes)]).numpy()

    def _batches(self, name: str, dim: str, data: Any) -> list[Tensor]:
        """Run a graph with one input and one output on batches as large as it was built for; return the outputs."""
        model = self._models[name]
        spec = model.contract.inputs[0]
        rows = self.array(data, spec.dtype)
        found = []
        for part in rows.split(model.profiles[0].ranges[dim].most):
            step = self._bound.get((name, len(part)))
            if step is None:
                step = self._bound[name, len(part)] = model.bind({dim: len(part)}, {})
            (out,) = step(**{spec.name: part}).values()
            found.append(out.clone())
        return found

    def steps(self, rows: int, capacity: int) -> TrtSteps:
        """Return models with caches of zeros and a prefix of zeros.

        Raises CoolsdError: more rows or positions than the engine was built for.
        """
        check_capacity(self._facts, "target", capacity, self._rebuild)
        return TrtSteps(self._description, self._models, rows)


class TrtSteps:
    """Target and draft for `rows` rows, with caches at fixed addresses. A step enqueues on torch's current stream.

    A step whose S has no profile is run in parts. Positions past the capacity are not checked here: the loop requests
    `runtime.state.capacity` positions and stays within them.
    """

    def __init__(self, description: Description, models: Mapping[str, TrtModel], rows: int) -> None:
        self.dims, self._models, self._rows = description.dims, models, rows
        known = models["target"].profiles
        span = known[0].ranges["R"]
        if rows > span.most:
            fix = "build with a larger engine.max_batch"
            raise CoolsdError("a batch", expected=f"at most {span.most} rows", found=f"{rows} rows", fix=fix)
        self._padded = max(rows, span.least)
        self.device = models["target"].device
        sizes = {"R": self._padded}
        self._memory: dict[str, dict[str, Tensor]] = {}
        for name in ("target", "draft"):
            if name in models:
                model = models[name]
                kept = [s for s in model.contract.inputs if s in model.caches or s.name in ("prefix", "start")]
                self._memory[name] = {s.name: model.zeros(s, sizes) for s in kept}
        self._bound: dict[tuple[str, int], TrtStep] = {}

    def reset(self, prefix: Tensor, start: Tensor | None) -> None:
        """Start another batch of the same number of rows: set its prefix and start, and zero the caches in place.

        prefix: [R, W, C], followed by a draft model's prefix in the last dimension.
        start: int64 [R], the first position of each row that is not padding; None: 0.
        """
        dims = self.dims
        for name, memory in self._memory.items():
            own = name == "draft" and dims.draft_dim
            memory["prefix"].copy_(prefix[..., dims.dim :] if own else prefix[..., : dims.dim])
            if "start" in memory:
                memory["start"].copy_(torch.zeros_like(memory["start"]) if start is None else start)
            for spec in self._models[name].caches:
                memory[spec.name].zero_()

    def target(self, ids: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Step the target over ids int64 [R, S] from pos int64 [R] on: logits float32 [R, S, V], features [R, S, C].

        The results are the step's output memory.
        """
        return self._step("target", pos, ids=ids)

    def draft(self, ids: Tensor, features: Tensor | None, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Step the draft as `target` does the target. features: None for a small draft model.

        Raises CoolsdError: an engine without a draft model.
        """
        if "draft" not in self._memory:
            raise CoolsdError(
                "a draft step", expected="an engine with a draft model", found="an engine built without one"
            )
        return self._step("draft", pos, ids=ids, **({} if features is None else {"features_in": features}))

    def _step(self, name: str, pos: Tensor, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        size = inputs["ids"].shape[1]
        cut = parts(self._models[name].profiles, {"R": self._padded, "S": size})
        if len(cut) == 1:
            return self._part(name, size, {**inputs, "pos": pos})
        found, at = [], 0
        for width in cut:
            piece = {key: x[:, at : at + width] for key, x in inputs.items()}
            found.append([x.clone() for x in self._part(name, width, {**piece, "pos": pos + at})])
            at += width
        logits, features = (torch.cat(list(pieces), dim=1) for pieces in zip(*found, strict=True))
        return logits, features

    def _part(self, name: str, size: int, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        step = self._bound.get((name, size))
        if step is None:
            sizes = {"R": self._padded, "S": size}
            step = self._bound[name, size] = self._models[name].bind(sizes, self._memory[name])
        out = step(**inputs)
        return out["logits"][: self._rows], out["features"][: self._rows]
