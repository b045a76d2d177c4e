"""The whole comparison: models made ready, turns drawn, figures computed.

Knows the order. Does not know the command line or pages.
"""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from coolsd_rt.machine import machine
from coolsd_rt.workflows.opening import description_of
from tools.performance import results
from tools.performance.contenders import field_of
from tools.performance.floor import LARGE, bandwidth
from tools.performance.models import Model, Ready, prepare, shortage, traffic
from tools.performance.splits import WAYS, process
from tools.performance.turns import Record, Turns

ITEM = {"fp32": 4, "int8": 1}  # bytes of a weight


@dataclass(frozen=True)
class Callbacks:
    """tell: a line that stays. start: so many turns of a model. turn: one more is done."""

    tell: Callable[[str], None] = lambda line: None
    start: Callable[[str, int], None] = lambda name, turns: None
    turn: Callable[[str], None] = lambda key: None


@dataclass(frozen=True)
class Comparison:
    """What to compare. turns: None is each model's own number. large: bytes of the array of the floor."""

    models: Sequence[Model]
    out: Path
    threads: int
    turns: int | None = None
    large: int = LARGE

    def turns_of(self, model: Model) -> int:
        """Return how many turns a model takes."""
        return self.turns or model.turns


def compare(asked: Comparison, callbacks: Callbacks) -> dict[str, Any]:
    """Return the figures as JSON data, or go on with an interrupted run of the same below `asked.out`.

    Raises what builds and engines raise. A model for which there is no room is left out.
    """
    began, here = time.perf_counter(), machine(asked.threads)
    left_out: dict[str, str] = {}
    ready: list[Ready] = []
    for model in asked.models:
        if why := shortage(model, asked.out):
            left_out[model.name] = why
            callbacks.tell(f"{model.name} is left out: {why}")
        else:
            ready.append(prepare(model, asked.out, callbacks.tell))
    folder = asked.out / "run"
    record = Record(folder, _head(asked, ready, here))
    resumed = "began" in record
    earlier = record.get("began", lambda: {"created": datetime.now(UTC).isoformat(timespec="seconds"), "machine": here})
    with _own_caches(asked.out.resolve(), empty=not resumed):
        models = {one.model.name: _one(one, asked, record, callbacks) for one in ready}
    return {
        "version": 1,
        "created": earlier["created"],
        "machine": earlier["machine"],
        "seconds": None if resumed else time.perf_counter() - began,
        "models": models,
        "goals": results.goals(models),
        "left_out": left_out,
    }


@contextmanager
def _own_caches(out: Path, empty: bool) -> Iterator[None]:
    """Plans and compiled code of this run, not of another day. empty: forget those of a run before."""
    own = {"COOLSD_CACHE": out / "plans", "TORCHINDUCTOR_CACHE_DIR": out / "inductor"}
    before = {name: os.environ.get(name) for name in own}
    for name, folder in own.items():
        if empty:
            shutil.rmtree(folder, ignore_errors=True)
        os.environ[name] = str(folder)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def finish(out: Path) -> None:
    """Forget the record: the next comparison measures anew."""
    shutil.rmtree(out / "run", ignore_errors=True)


def _head(asked: Comparison, ready: Sequence[Ready], here: Mapping[str, Any]) -> dict[str, Any]:
    """What all figures of a record have in common."""
    return {
        "machine": {key: here[key] for key in ("cpu", "cores", "threads", "versions")},
        "turns": {one.model.name: asked.turns_of(one.model) for one in ready},
        "engines": {
            one.model.name: {p: engine.manifest.fingerprint for p, engine in one.engines.items()} for one in ready
        },
    }


def _one(ready: Ready, asked: Comparison, record: Record, callbacks: Callbacks) -> dict[str, Any]:
    """Draw the turns of one model. Its engines are freed afterwards."""
    model, name = ready.model, ready.model.name
    field = field_of(ready, asked.threads)
    prompt = field.prompts[0]
    dims = description_of(next(iter(ready.engines.values()))).dims

    def floor(turn: int) -> None:
        record.get(
            f"{name}/{results.FLOOR}/{turn}", lambda: {"bytes_per_second": bandwidth(asked.threads, asked.large)}
        )

    def splits(turn: int) -> None:
        for precision, way in product(ready.engines, WAYS):
            folder = ready.engines[precision].folder
            call = partial(process, folder, prompt, WAYS[way], asked.threads)
            about = {"engine": precision, "way": way}
            record.get(f"{name}/{results.SPLIT}/{precision}/{way}/{turn}", partial(_with, about, call))

    drawing = Turns(name, field, asked.turns_of(model), record, callbacks.turn)
    callbacks.start(model.title, drawing.count)
    drawing.run((floor, splits))
    bytes_read = {precision: traffic(ready.loaded, dims, ITEM[precision]) for precision in ready.engines}
    found = results.model_figures(name, record, field.contenders, dims.tokens, bytes_read)
    about = {"title": model.title, "real": ready.real, "tokens": dims.tokens, "left_out": drawing.left_out}
    del field, drawing
    gc.collect()  # engines hold memory that the next model needs
    return {**about, **found}


def _with(about: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    return {**about, **make()}
