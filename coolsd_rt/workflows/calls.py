"""One running call of `coolsd_rt.Pipeline`: reads the prompts, draws the batches, assembles the output.

Knows the order of the steps. Does not know threads, callbacks or how the caller receives events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from coolsd_rt.runtime.statistics import Generation
from coolsd_rt.spec import SpecError
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.batches import OnBatchProgress, draw_batches
from coolsd_rt.workflows.call_options import Call
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.results import GenerationStats, ImageRecord, PipelineOutput, records_of


class Drawing:
    """The work of one checked call, batch by batch."""

    def __init__(self, opened: OpenedEngine, call: Call) -> None:
        """Raises UserError if the spec or the engine refuses a value, or if the number of seeds is wrong."""
        self.asked = call.asked
        try:
            self.prepared = Prepared.of(opened, call, call.names)
        except SpecError as error:
            raise SpecError(error.problems, one_line=True) from None
        self.tokens = opened.description.dims.tokens
        self._images_per_prompt = call.images_per_prompt
        self._records: list[ImageRecord] = []
        self._parts: list[Generation] = []
        self._loop = call.loop
        self._warnings: tuple[str, ...] = ()
        self._seconds = 0.0

    @property
    def done(self) -> int:
        """Number of finished images."""
        return len(self._records)

    def run(self, on_progress: OnBatchProgress | None = None) -> Iterator[list[ImageRecord]]:
        """Draw all batches. Yields the images of each finished batch. Raises UserError if a prompt cannot be read."""
        began = time.perf_counter()
        opened = self.prepared.opened
        jobs = drawing.jobs_of(self.asked, opened.conditioner)
        self._warnings = self.prepared.warnings(jobs)
        self.prepared = self.prepared.planned(jobs, len(jobs), self._loop)
        for batch in draw_batches(opened, jobs, self.prepared.settings, on_progress, self._loop):
            records = records_of(self.prepared, batch)
            self._parts.append(batch.generation)
            self._records += records
            self._seconds = time.perf_counter() - began
            yield records

    def output(self) -> PipelineOutput:
        """Return the images and statistics of the batches that are finished."""
        length = self.prepared.settings.law.length
        stats = GenerationStats.of(self._parts, length, self.tokens, self._seconds)
        return PipelineOutput(tuple(self._records), stats, self._warnings, self._images_per_prompt)
