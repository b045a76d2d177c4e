"""Runs a sweep: draws and measures every point of a grid, stores the results, and plots them.

    1. Check the sweep's file, the engine, every point's values and the references. Nothing is drawn yet.
    2. Claim the folder, which must be empty or hold this sweep.
    3. Draw the plain-decoding images that a measure needs as references.
    4. For each point: draw its batches, measure them, write its figures. Existing results are reused.
    5. Write results.json and the plots.

    DIR/sweep.json                     engine, prompts, seed, points, references of the sweep
    DIR/references/00000.npz, ...      images of plain decoding, if a measure needs them
    DIR/points/000-lossless/*.npz      batches of images of a point
    DIR/points/000-lossless.png        contact sheet of the point
    DIR/points/000-lossless.json       figures of the point; it exists once the point is finished
    DIR/results.json, *.png, *.svg     all figures, and the plots

Knows engines through the workflows. Does not know how a measure works or what a terminal shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coolsd_rt.files import why_unusable
from coolsd_rt.metrics.metric import Measure
from coolsd_rt.spec import Spec
from coolsd_rt.spec.fields import Threads, check_fields
from coolsd_rt.store.atomic import check_folder
from coolsd_rt.store.results import claim, save
from coolsd_rt.sweep import plot
from coolsd_rt.sweep.draw import DrawnPoint, SweepContext, draw
from coolsd_rt.sweep.measures import measures_of
from coolsd_rt.sweep.results import PointResult, Results, read_point
from coolsd_rt.sweep.spec import LoadedSweep, Point, load_sweep, points_of, reference_spec
from coolsd_rt.workflows import drawing, opening, png
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.generate.run import unknown_words
from coolsd_rt.workflows.opened import OpenedEngine

HEAD, RESULTS = "sweep.json", "results.json"


@dataclass(frozen=True)
class SweepConfig:
    """A request for a sweep. engine_spec: the present path of the engine's spec, if it has moved since the build."""

    engine: Path
    sweep: Path
    out: Path
    engine_spec: Path | None = None
    threads: Threads | None = None
    reading: opening.PromptInputs | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class SweepCallbacks:
    """Callbacks that report progress. Batches are those of all points and of the references."""

    warning: Callable[[str], None] = lambda line: None
    start: Callable[[int, int], None] = lambda points, batches: None
    drawing: Callable[[str], None] = lambda name: None
    batch: Callable[[], None] = lambda: None
    point: Callable[[PointResult, bool], None] = lambda result, was_there: None


def sweep(request: SweepConfig, listener: SweepCallbacks | None = None) -> Results:
    """Draw and measure every point, or continue with what the folder has.

    Raises:
        UserError: no engine, a wrong sweep, missing references, or a folder with something else; before anything is
            drawn.
        CoolsdError: the engine is broken, or the disk is full.
    """
    listener = listener or SweepCallbacks()
    loaded = load_sweep(request.sweep)
    opened = OpenedEngine.at(request.engine, request.reading, request.threads, request.engine_spec)
    opened.check_draws()
    base = opened.spec
    points = points_of(loaded, base)
    check_folder(request.out)
    conditioner = opened.conditioner
    settings = [opened.settings(point.spec, plain=point.plain) for point in points]
    jobs = _jobs(loaded, opened)
    for line in unknown_words(jobs):
        listener.warning(line)
    measures = measures_of(loaded, lambda: opened.find_spec().files["image.weights"])
    desk = SweepContext(opened.engine, conditioner, base.engine.max_batch)
    plan = _Plan(loaded, opened, reference_spec(loaded, base), points, settings, jobs, measures, desk)
    plan.check()
    claim(request.out, HEAD, plan.head(), "a sweep of this engine by this file")
    return _SweepRun(plan, request.out, listener).finish()


def _jobs(loaded: LoadedSweep, opened: OpenedEngine) -> list[Job]:
    """Return the images of every point: prompts are distributed over them, image k has seed + k."""
    texts = loaded.prompts() or opened.default_prompts()
    return drawing.spread_jobs(texts, loaded.spec.images, loaded.spec.seed, opened.conditioner)


@dataclass(frozen=True)
class _Plan:
    """A checked sweep, and the objects that draw it."""

    loaded: LoadedSweep
    opened: OpenedEngine
    reference: Spec
    points: list[Point]
    settings: list[Settings]
    jobs: list[Job]
    measures: list[Measure]
    desk: SweepContext

    @property
    def prompts(self) -> list[str]:
        return [job.prompt for job in self.jobs]

    @property
    def plain_jobs(self) -> list[Job]:
        """Reference images of plain decoding: the points' prompts in turn, with seeds that no point uses."""
        if not any(measure.plain_images for measure in self.measures):
            return []
        asked, count = self.loaded.spec.quality.frechet, len(self.jobs)
        wanted = asked.images if asked is not None and asked.images else count
        first = self.loaded.spec.seed + count
        again = [self.jobs[k % count] for k in range(wanted)]
        return [Job(k, j.prompt, drawing.image_seed(first, k), j.encoded) for k, j in enumerate(again)]

    @property
    def batches(self) -> int:
        """Number of batches of all points and the references."""
        each = math.ceil(len(self.jobs) / self.desk.batch)
        return math.ceil(len(self.plain_jobs) / self.desk.batch) + len(self.points) * each

    def check(self) -> None:
        """Raise UserError if a measure cannot work. Decodes one image to find the size of images."""
        engine = self.desk.engine
        side = int(engine.decode_images(np.zeros((1, engine.dims.tokens), np.int64)).shape[1])
        for measure in self.measures:
            measure.check(side, self.prompts)

    def head(self) -> dict[str, Any]:
        """Return everything that the figures depend on, as JSON data."""
        draft = self.reference.resolved()["draft"]
        return {
            "version": 1,
            "engine": self.opened.manifest.fingerprint,
            "draft": {key: value for key, value in draft.items() if key != "weights"},
            "images": len(self.jobs),
            "seed": self.loaded.spec.seed,
            "prompts": self.prompts,
            "batch": self.desk.batch,
            "points": [point.identity() for point in self.points],
            "references": {"images": len(self.plain_jobs), **self.reference.resolved()["sampling"]},
            "quality": {measure.kind.name: measure.identity() for measure in self.measures},
        }


class _SweepRun:
    """Runs a plan point by point."""

    def __init__(self, plan: _Plan, out: Path, listener: SweepCallbacks) -> None:
        self.plan, self.out, self.listener = plan, out, listener

    def finish(self) -> Results:
        """Do all remaining work and return the results."""
        self.listener.start(len(self.plan.points), self.plan.batches)
        self.refer()
        results = Results.of(self.plan.opened.manifest.fingerprint, [self.point(p) for p in self.plan.points])
        save(self.out / RESULTS, results.text())
        for name, data in plot.plots(results).items():
            save(self.out / name, data)
        return results

    def refer(self) -> None:
        """Draw the plain-decoding images for the measures that need them."""
        if jobs := self.plan.plain_jobs:
            self.listener.drawing("references")
            settings = self.plan.opened.settings(self.plan.reference, plain=True)
            drawn = draw(self.plan.desk, jobs, settings, self.out / "references", self.listener.batch)
            for measure in self.plan.measures:
                if measure.plain_images:
                    measure.refer(drawn.images)

    def point(self, point: Point) -> PointResult:
        """Return one point's result, from its file or drawn and measured now."""
        plan, stem = self.plan, self.out / "points" / point.file_stem
        self.listener.drawing(point.name)
        path = stem.with_name(f"{stem.name}.json")
        if there := why_unusable(path) != "nothing":
            result = read_point(path)
            for _ in drawing.batches(plan.jobs, plan.desk.batch):
                self.listener.batch()
        else:
            settings = plan.settings[point.index]
            drawn = draw(plan.desk, plan.jobs, settings, stem, self.listener.batch)
            quality = {m.kind.name: m.measure(drawn.images, plan.prompts) for m in plan.measures}
            result = PointResult.of(point, settings.law, drawn, quality)
            save(stem.with_name(f"{stem.name}.png"), _sheet(drawn, plan.prompts))
            save(path, result.text())
        self.listener.point(result, there)
        return result


def _sheet(drawn: DrawnPoint, prompts: Sequence[str]) -> bytes:
    """Return a contact sheet of a point's images with their prompts, up to the limit of a sheet."""
    shown = list(drawn.images[: png.SHEET_LIMIT])
    return png.png_bytes(png.sheet(shown, prompts[: len(shown)]))
