"""Draws jobs in batches and decodes their codes to pixels.

The command `generate` writes each batch to files; `coolsd_rt.Pipeline` returns it to the caller. Both draw here. Knows
the order of the steps of a batch. Does not know files or who receives the images.
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

OnBatchProgress = Callable[[Sequence[Job], Progress], None]  # called with the jobs of the batch and their progress


@dataclass(frozen=True)
class DrawnBatch:
    """The finished images of one batch, in the order of `jobs`.

    Attributes:
        jobs: the images that were asked for.
        generation: their code ids and the statistics of the loop.
        pixels: RGB uint8 [M, F, F, 3].
        seconds_image: wall time of the condition graph, the image graph and the allocation of caches.
        seconds_load: wall time of loading the image graph, if it was left for later; the first batch alone has any.
    """

    jobs: Sequence[Job]
    generation: Generation
    pixels: NDArray[np.uint8]
    seconds_image: float
    seconds_load: float = 0.0


def draw_batches(
    opened: OpenedEngine,
    jobs: Sequence[Job],
    settings: Settings,
    on_progress: OnBatchProgress | None = None,
    loop: Loop = "auto",
) -> Iterator[DrawnBatch]:
    """Draw jobs in batches of at most `engine.max_batch` images. The first batch loads the engine.

    loop: see `runtime.round.generate`. Raises UserError and CoolsdError as `drawing.draw` does.
    """
    for batch in drawing.batches(jobs, opened.spec.engine.max_batch):
        tell = None if on_progress is None else partial(on_progress, batch)
        generation = drawing.draw(opened.engine, batch, opened.conditioner, settings, loop=loop, on_progress=tell)
        seconds_load = opened.load_graph("image")
        began = time.perf_counter()
        pixels = np.asarray(opened.engine.decode_images(generation.codes))
        seconds = generation.statistics.seconds_prefix + time.perf_counter() - began
        yield DrawnBatch(batch, generation, pixels, seconds, seconds_load)
