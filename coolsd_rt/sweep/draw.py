"""Draws the images of one point of a sweep, batch by batch, and measures the speed.

Knows engines, jobs and stored batches. Does not know quality measures or the other points.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.metrics.metric import Figure, Images
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.runtime.statistics import LoopTaken, Statistics
from coolsd_rt.store.results import Arrays, Batches
from coolsd_rt.workflows import drawing, totals
from coolsd_rt.workflows.drawing import Job, Settings

_COUNTS = ("rounds", "accepted_histogram", "attempts", "accepts")
_PASSES = ("repeats", "distance")  # of the rule per_position
FIELDS = ("codes", "pixels", "seconds", "degenerate", "by_device", *_COUNTS)


@dataclass(frozen=True)
class SweepContext:
    """The objects that draw every point."""

    engine: Engine
    conditioner: Conditioner
    batch: int  # images per batch


@dataclass(frozen=True)
class DrawnPoint:
    """The images of a point.

    Attributes:
        images: uint8 [N, F, F, 3] in the order of the jobs.
        statistics: counts over all rounds.
        seconds: wall time of drawing.
        tokens: image tokens of all images.
        loop: the loop that drew them.
    """

    images: Images
    statistics: Statistics
    seconds: float
    tokens: int
    loop: LoopTaken | None

    @property
    def tokens_per_second(self) -> float:
        """Image tokens per second of drawing."""
        return self.tokens / self.seconds

    @property
    def accept_length(self) -> Figure:
        """Tokens per round, with the error due to differences between images."""
        rounds = self.statistics.rounds.astype(np.float64)
        value = self.statistics.mean_acceptance_length
        tokens = value * rounds.sum() / len(rounds)  # tokens per image, equal for all images
        error = math.nan
        if len(rounds) > 1:
            residuals = tokens - value * rounds
            error = math.sqrt((residuals**2).sum() / (len(rounds) * (len(rounds) - 1))) / float(rounds.mean())
        return Figure.around(value, error, "95%, over the images")


def draw(
    desk: SweepContext,
    jobs: Sequence[Job],
    settings: Settings,
    folder: Path,
    on_batch: Callable[[], None] = lambda: None,
) -> DrawnPoint:
    """Draw all images of a point. Batches that `folder` holds are not drawn again."""
    fields = FIELDS if settings.law.refinements is None else (*FIELDS, *_PASSES)
    kept = Batches(folder, fields, "a batch of a sweep's point")
    parts = []
    for number, batch in enumerate(drawing.batches(jobs, desk.batch)):
        parts.append(kept.get(number, partial(_batch, desk, batch, settings)))
        on_batch()
    statistics = totals.total([_statistics(part) for part in parts], settings.law.length)
    seconds = sum(float(part["seconds"]) for part in parts)
    pixels: NDArray[np.uint8] = np.concatenate([part["pixels"] for part in parts])
    loop = totals.one_loop("device" if part["by_device"] else "host" for part in parts)
    return DrawnPoint(pixels, statistics, seconds, len(jobs) * desk.engine.dims.tokens, loop)


def _batch(desk: SweepContext, jobs: Sequence[Job], settings: Settings) -> Arrays:
    began = time.perf_counter()
    generation = drawing.draw(desk.engine, jobs, desk.conditioner, settings, loop="auto")
    seconds = time.perf_counter() - began
    found = generation.statistics
    return {
        "codes": np.asarray(generation.codes),
        "pixels": np.asarray(desk.engine.decode_images(generation.codes)),
        "seconds": np.array(seconds),
        "degenerate": np.array(found.degenerate),
        "by_device": np.array(generation.loop == "device"),
        **{name: np.asarray(getattr(found, name)) for name in _COUNTS},
        **({} if found.distance is None else {name: np.array(getattr(found, name)) for name in _PASSES}),
    }


def _statistics(part: Arrays) -> Statistics:
    rounds, histogram, attempts, accepts = (part[name] for name in _COUNTS)
    found = Statistics(rounds, histogram, attempts, accepts, degenerate=int(part["degenerate"]))
    if "distance" in part:
        found.repeats, found.distance = int(part["repeats"]), float(part["distance"])
    return found
