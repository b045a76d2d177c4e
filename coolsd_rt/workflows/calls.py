"""One running call of `coolsd_rt.Pipeline`: reads the prompts, draws the images, assembles the output.

Knows the order of the steps. Does not know threads, callbacks or how the caller receives events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from coolsd_rt.runtime.statistics import Statistics
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.call_options import Call
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.results import GenerationStats, ImageRecord, PipelineOutput, record_of
from coolsd_rt.workflows.slots import JobsDrawing, OnJobsProgress


class Drawing:
    """The work of one checked call, image by image."""

    def __init__(self, opened: OpenedEngine, call: Call) -> None:
        """Raises UserError if the spec or the engine refuses a value, or if the number of seeds is wrong."""
        self.asked = call.asked
        self.prepared = Prepared.of_call(opened, call)
        self.tokens = opened.description.dims.tokens
        self._images_per_prompt = call.images_per_prompt
        self._records: list[ImageRecord] = []
        self._images: JobsDrawing | None = None
        self._loop = call.loop
        self._warnings: tuple[str, ...] = ()
        self._seconds = 0.0

    @property
    def done(self) -> int:
        """Number of finished images."""
        return len(self._records)

    def run(self, on_progress: OnJobsProgress | None = None) -> Iterator[ImageRecord]:
        """Draw all images. Yields each when it is finished. Raises UserError if a prompt cannot be read."""
        began = time.perf_counter()
        opened = self.prepared.opened
        jobs = drawing.jobs_of(self.asked, opened.conditioner)
        self._warnings = self.prepared.warnings(jobs)
        self.prepared = self.prepared.planned(jobs, len(jobs), self._loop)
        self._images = JobsDrawing(opened, jobs, self.prepared.settings, on_progress, self._loop)
        for image in self._images.run():
            self._records.append(record_of(self.prepared, image))
            self._seconds = time.perf_counter() - began
            yield self._records[-1]

    def output(self) -> PipelineOutput:
        """Return the images that are finished, in the order of the prompts, and their statistics."""
        drawn = self._images
        whole = Statistics.empty(0, self.prepared.settings.law.length) if drawn is None else drawn.statistics
        stats = GenerationStats.of(whole, None if drawn is None else drawn.loop, self.tokens, self._seconds)
        records = sorted(self._records, key=lambda record: record.index)
        return PipelineOutput(tuple(records), stats, self._warnings, self._images_per_prompt)
