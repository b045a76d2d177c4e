"""The one way from jobs to pixels: a batch is drawn, its codes are decoded, and whoever asked takes it from there.

The command `generate` writes each batch to files, `coolsd_rt.Pipeline` gives it to its caller; both draw here. Knows
the order of work of a batch. Does not know files, nor who listens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.runtime.progress import Progress
from coolsd_rt.runtime.round import Loop
from coolsd_rt.runtime.statistics import Generation
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.opened import OpenedEngine

OnBatchProgress = Callable[[Sequence[Job], Progress], None]  # the batch's jobs, and how far they are


@dataclass(frozen=True)
class DrawnBatch:
    """Finished images, in the order of `jobs`. pixels: RGB uint8 [M, F, F, 3].

    seconds_image: of the condition and image graphs, and of fresh caches.
    """

    jobs: Sequence[Job]
    generation: Generation
    pixels: NDArray[np.uint8]
    seconds_image: float


def draw_batches(
    opened: OpenedEngine,
    jobs: Sequence[Job],
    settings: Settings,
    on_progress: OnBatchProgress | None = None,
    loop: Loop = "auto",
) -> Iterator[DrawnBatch]:
    """Draw jobs in turns of at most `engine.max_batch` images. Loads the engine with the first.

    loop: as `runtime.round.generate` takes it. Raises UserError, CoolsdError: as `drawing.draw`.
    """
    for batch in drawing.batches(jobs, opened.spec.engine.max_batch):
        tell = None if on_progress is None else partial(on_progress, batch)
        generation = drawing.draw(opened.engine, batch, opened.conditioner, settings, loop=loop, on_progress=tell)
        began = time.perf_counter()
        pixels = np.asarray(opened.engine.decode_images(generation.codes))
        seconds = generation.statistics.seconds_prefix + time.perf_counter() - began
        yield DrawnBatch(batch, generation, pixels, seconds)
