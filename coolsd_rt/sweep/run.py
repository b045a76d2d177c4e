"""A sweep: every point of a grid drawn and measured, kept as it goes, and plotted.

    1. Check: the sweep's file, the engine, every point's values, the references; nothing has been drawn.
    2. Claim the folder. It holds this sweep or nothing.
    3. Draw the images of plain decoding that a measure refers to.
    4. For each point: draw its batches, measure, write its figures. What is there is not done again.
    5. results.json, and the plots.

    DIR/sweep.json                     what is swept: engine, prompts, seed, points, references
    DIR/references/00000.npz, ...      images of plain decoding, if a measure refers to them
    DIR/points/000-lossless/*.npz      batches of images of a point
    DIR/points/000-lossless.png        all of them on a sheet
    DIR/points/000-lossless.json       its figures: the point is finished
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
    """What to sweep. engine_spec: where the engine's spec is now, if it has moved since the build."""

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
    """Callbacks that report progress during the work. Batches are those of all points and of the references."""

    warning: Callable[[str], None] = lambda line: None
    start: Callable[[int, int], None] = lambda points, batches: None
    drawing: Callable[[str], None] = lambda name: None
    batch: Callable[[], None] = lambda: None
    point: Callable[[PointResult, bool], None] = lambda result, was_there: None


def sweep(request: SweepConfig, listener: SweepCallbacks | None = None) -> Results:
    """Draw and measure every point, or go on with what the folder has.

    Raises:
        UserError: no engine, a wrong sweep, missing references, a folder of something else; before anything is drawn.
        CoolsdError: a broken engine, a full disk.
    """
    listener = listener or SweepCallbacks()
    loaded = load_sweep(request.sweep)
    opened = OpenedEngine.at(request.engine, request.reading, request.threads, request.engine_spec)
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
    """The images of every point: prompts spread over them, image k with seed + k."""
    texts = loaded.prompts() or opened.default_prompts()
    return drawing.spread_jobs(texts, loaded.spec.images, loaded.spec.seed, opened.conditioner)


@dataclass(frozen=True)
class _Plan:
    """A sweep that was checked, and what it is drawn with."""

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
        """Images of plain decoding to refer to: the points' prompts in turn, with seeds that no point has."""
        if not any(measure.plain_images for measure in self.measures):
            return []
        asked, count = self.loaded.spec.quality.frechet, len(self.jobs)
        wanted = asked.images if asked is not None and asked.images else count
        first = self.loaded.spec.seed + count
        again = [self.jobs[k % count] for k in range(wanted)]
        return [Job(k, j.prompt, drawing.image_seed(first, k), j.encoded) for k, j in enumerate(again)]

    @property
    def batches(self) -> int:
        """Of all points and the references."""
        each = math.ceil(len(self.jobs) / self.desk.batch)
        return math.ceil(len(self.plain_jobs) / self.desk.batch) + len(self.points) * each

    def check(self) -> None:
        """Raise UserError if a measure could not do its work. Paints one image to see how large they are."""
        engine = self.desk.engine
        side = int(engine.decode_images(np.zeros((1, engine.dims.tokens), np.int64)).shape[1])
        for measure in self.measures:
            measure.check(side, self.prompts)

    def head(self) -> dict[str, Any]:
        """All that the figures depend on."""
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
    """A plan on its way through the points."""

    def __init__(self, plan: _Plan, out: Path, listener: SweepCallbacks) -> None:
        self.plan, self.out, self.listener = plan, out, listener

    def finish(self) -> Results:
        """All that is still to be done."""
        self.listener.start(len(self.plan.points), self.plan.batches)
        self.refer()
        results = Results.of(self.plan.opened.manifest.fingerprint, [self.point(p) for p in self.plan.points])
        save(self.out / RESULTS, results.text())
        for name, data in plot.plots(results).items():
            save(self.out / name, data)
        return results

    def refer(self) -> None:
        """Images of plain decoding for the measures that refer to them."""
        if jobs := self.plan.plain_jobs:
            self.listener.drawing("references")
            settings = self.plan.opened.settings(self.plan.reference, plain=True)
            drawn = draw(self.plan.desk, jobs, settings, self.out / "references", self.listener.batch)
            for measure in self.plan.measures:
                if measure.plain_images:
                    measure.refer(drawn.images)

    def point(self, point: Point) -> PointResult:
        """One point, from its file or drawn and measured now."""
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
    """A point's images with their prompts, as many as a sheet shows."""
    shown = list(drawn.images[: png.SHEET_LIMIT])
    return png.png_bytes(png.sheet(shown, prompts[: len(shown)]))
