"""Who is compared: each draws the same images by another way, and says what it spent where.

    torch       eager reference; torch.compile of it; the official loop
    fp32, int8  plain; lossless, COOL-SD, each with the model's draft and with Jacobi drafts; auto, the default

Knows engines and settings. Does not know turns, files, or what a figure is compared with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from coolsd_rt.backends.torch.eager import TorchEngine
from coolsd_rt.checkpoints.load import load_target
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.spec import Spec, with_jacobi, with_overrides
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.planning import plan_for, with_plan
from tools.demo.benchmark import laws
from tools.demo.report import JACOBI, JACOBI_LOSSLESS, LOSSLESS, PLAIN, RELAXED
from tools.gpu.sizes import constant_rate
from tools.performance.compiled import CompiledEngine
from tools.performance.models import Ready
from tools.performance.official import OfficialLoop

TORCH = "torch"
EAGER, COMPILED, OFFICIAL, AUTO = "eager reference", "torch.compile", "official loop", "auto"
TORCH_NAMES = (EAGER, COMPILED, OFFICIAL)
PAPER = {LOSSLESS: 2.42, RELAXED: 2.73}
"""Accept lengths of EAGLE-1 and of COOL-SD in the paper's table for LlamaGen-XL (docs/reproduce.md)."""
AT_ONCE = (PLAIN, LOSSLESS, AUTO)


@dataclass(frozen=True)
class Drawn:
    """One batch. seconds: from words to tokens. phases: of these, by what they were spent on; empty if not known.

    accept: tokens a round. note: what was decided on the way, such as a plan.
    """

    seconds: float
    phases: Mapping[str, float]
    accept: float
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {"seconds": self.seconds, "phases": dict(self.phases), "accept": self.accept, "note": self.note}


@dataclass(frozen=True)
class Contender:
    """One way of drawing `images` images at once. `engine` groups those that have the same weights in memory."""

    engine: str
    name: str
    images: int
    draw: Callable[[Sequence[Job]], Drawn]

    @property
    def key(self) -> str:
        """Its name in a record."""
        return f"{self.engine}/{self.name}/{self.images}"


@dataclass(frozen=True)
class Field:
    """All contenders of one model, and what reads its prompts."""

    contenders: tuple[Contender, ...]
    conditioner: Conditioner
    prompts: tuple[str, ...]

    def jobs(self, images: int, turns: int) -> list[Sequence[Job]]:
        """Return a batch for each turn."""
        every = drawing.spread_jobs(self.prompts, images * turns, 0, self.conditioner)
        return list(drawing.batches(every, images))


def field_of(ready: Ready, threads: int) -> Field:
    """Load the engines of a model. Raises as `OpenedEngine` and `opening.open_reference` do."""
    opened = {precision: OpenedEngine(folder, threads=threads) for precision, folder in ready.engines.items()}
    first = next(iter(opened.values()))
    conditioner = first.conditioner
    found: list[Contender] = []
    if ready.model.torch:
        reference = opening.open_reference(ready.loaded, threads)
        found += _torch(ready, reference, first, conditioner)
    for precision, one in opened.items():
        for size in ready.model.sizes:
            found += _ours(ready, precision, one, size)
    prompts = opening.default_prompts(ready.loaded, conditioner)
    return Field(tuple(found), conditioner, tuple(prompts))


def _torch(ready: Ready, reference: Engine, first: OpenedEngine, conditioner: Conditioner) -> list[Contender]:
    if not isinstance(reference, TorchEngine):
        raise TypeError(f"expected an eager engine, found {type(reference).__name__}")
    settings = first.settings(ready.loaded.spec, plain=True)
    official = OfficialLoop(load_target(ready.loaded.files["target.weights"]))
    return [
        Contender(TORCH, EAGER, 1, _drawing(reference, settings, conditioner)),
        Contender(TORCH, COMPILED, 1, _drawing(CompiledEngine(reference), settings, conditioner)),
        Contender(TORCH, OFFICIAL, 1, _official(official, reference, settings, conditioner)),
    ]


def _ours(ready: Ready, precision: str, one: OpenedEngine, size: int) -> list[Contender]:
    spec = with_overrides(ready.loaded.spec, {"pacing.kind": "manual"})
    settings = {PLAIN: one.settings(spec, plain=True)}
    settings |= {name: one.settings(law) for name, law in (laws(spec) if ready.real else fixed(spec)).items()}
    wanted = (PLAIN, LOSSLESS, RELAXED, JACOBI_LOSSLESS, JACOBI) if size == 1 else AT_ONCE
    ways = {name: _drawing(one.engine, chosen, one.conditioner) for name, chosen in settings.items() if name in wanted}
    ways[AUTO] = _auto(one, one.settings(spec))  # the law of `generate`, whose record of plans it makes
    return [Contender(precision, name, size, draw) for name, draw in ways.items()]


def fixed(spec: Spec) -> dict[str, Spec]:
    """Return the speculating rows of a model with random weights: the paper's accept lengths, whatever it draws.

    Nobody has published one for Jacobi drafts on this model: theirs is COOL-SD's, to show what such a round costs.
    """
    length = spec.draft.length
    rows = {
        name: with_overrides(spec, {"acceptance.rates": [round(constant_rate(tau, length), 4)] * length})
        for name, tau in PAPER.items()
    }
    return {**rows, JACOBI: with_jacobi(rows[RELAXED], length)}


def _drawing(engine: Engine, settings: Settings, conditioner: Conditioner) -> Callable[[Sequence[Job]], Drawn]:
    def draw(jobs: Sequence[Job]) -> Drawn:
        began = time.perf_counter()
        statistics = drawing.draw(engine, jobs, conditioner, settings).statistics
        seconds = time.perf_counter() - began
        spent = statistics.seconds
        phases = {"target": spent["target"], "draft": spent["draft"], "law": spent["verify"]}
        return Drawn(seconds, phases, statistics.mean_acceptance_length)

    return draw


def _auto(one: OpenedEngine, settings: Settings) -> Callable[[Sequence[Job]], Drawn]:
    """The default: as the recorded plan for such a batch says. The first call may try plans; it is never timed."""

    def draw(jobs: Sequence[Job]) -> Drawn:
        plan = plan_for(one.engine, jobs, one.conditioner, settings, one.plans)
        return replace(_drawing(one.engine, with_plan(settings, plan), one.conditioner)(jobs), note=str(plan))

    return draw


def _official(
    loop: OfficialLoop, reference: TorchEngine, settings: Settings, conditioner: Conditioner
) -> Callable[[Sequence[Job]], Drawn]:
    def draw(jobs: Sequence[Job]) -> Drawn:
        began = time.perf_counter()
        rows = drawing.prefix_rows(jobs, conditioner, settings.sampling.guided)
        prefix = reference.encode_condition(rows.text)[..., : reference.dims.dim]
        start = torch.as_tensor(rows.start) if reference.dims.padded and rows.start is not None else None
        loop.draw(prefix, settings.sampling, jobs[0].seed, start)
        return Drawn(time.perf_counter() - began, {}, 1.0)

    return draw
