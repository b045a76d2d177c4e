"""One running call of `coolsd_rt.Pipeline`: reads the prompts, draws images or writes texts, assembles the output.

Knows the order of the steps. Does not know threads, callbacks or how the caller receives events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from coolsd_rt.errors import UserError
from coolsd_rt.prompts.texts import readable
from coolsd_rt.runtime.statistics import Statistics
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.call_options import Call
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.results import GenerationStats, ImageRecord, PipelineOutput, record_of
from coolsd_rt.workflows.slots import JobsDrawing, OnJobsProgress
from coolsd_rt.workflows.texts import TextAsk, TextPart, TextsDrawing, WrittenText, bounded, text_jobs


class Drawing:
    """The work of one checked call, image by image."""

    def __init__(self, opened: OpenedEngine, call: Call) -> None:
        """Raises UserError if the spec or the engine refuses a value, or if the number of seeds is wrong."""
        self._call, self._writes = call, opened.spec.writes == "text"
        if call.text_options and not self._writes:
            name = next(iter(call.text_options))
            raise UserError(
                name, expected="an engine that writes text", found="one that draws images", fix="leave it out"
            )
        self.asked = call.asked(readable) if self._writes else call.asked()
        self.prepared = Prepared.of_call(opened, call)
        self.tokens = opened.description.dims.tokens
        self._images_per_prompt = call.images_per_prompt
        self._records: list[ImageRecord] = []
        self._images: JobsDrawing | None = None
        self._loop = call.loop
        self._warnings: tuple[str, ...] = ()
        self._seconds = 0.0
        self._texts: list[WrittenText] = []
        self._written: TextsDrawing | None = None

    @property
    def done(self) -> int:
        """Number of finished images or texts."""
        return len(self._records) + len(self._texts)

    def write(self, *, parts: bool = False) -> Iterator[TextPart | WrittenText]:
        """Write all texts. Yields each when it is finished, and parts of them before if they are wanted.

        Raises UserError if a prompt is refused, or the engine draws images.
        """
        began, opened, call = time.perf_counter(), self.prepared.opened, self._call
        jobs = text_jobs(opened, self.asked, TextAsk(call.raw, call.system))
        self.prepared = self.prepared.with_asked(bounded(opened, self.prepared.asked, call.max_tokens))
        self.prepared = self.prepared.planned(jobs, len(jobs), self._loop)
        self._written = TextsDrawing(opened, jobs, self.prepared.settings)
        for event in self._written.events(parts=parts):
            if isinstance(event, WrittenText):
                self._texts.append(event)
                self._seconds = time.perf_counter() - began
            yield event

    def finish(self, on_progress: OnJobsProgress | None = None) -> None:
        """Draw all images, or write all texts."""
        if self._writes:
            for _ in self.write():
                pass
            return
        for _ in self.run(on_progress):
            pass

    def run(self, on_progress: OnJobsProgress | None = None) -> Iterator[ImageRecord]:
        """Draw all images. Yields each when it is finished. Raises UserError if a prompt cannot be read."""
        self.prepared.opened.check_draws()
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
        """Return the images or texts that are finished, in the order of the prompts, and their statistics."""
        if self._writes:
            return self._text_output()
        drawn = self._images
        whole = Statistics.empty(0, self.prepared.settings.law.length) if drawn is None else drawn.statistics
        stats = GenerationStats.of(whole, None if drawn is None else drawn.loop, self.tokens, self._seconds)
        records = sorted(self._records, key=lambda record: record.index)
        return PipelineOutput(tuple(records), stats, self._warnings, self._images_per_prompt)

    def _text_output(self) -> PipelineOutput:
        written = self._written
        whole = Statistics.empty(0, self.prepared.settings.law.length) if written is None else written.statistics
        texts = tuple(sorted(self._texts, key=lambda text: text.job.index))
        loop = None if written is None else written.loop
        stats = replace(GenerationStats.of(whole, loop, 0, self._seconds), tokens=sum(len(text.ids) for text in texts))
        return PipelineOutput((), stats, (), self._images_per_prompt, texts)
