"""One image in an engine's process: what is told of it after each round, and its last message.

Knows pixels and messages. Does not know the images beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from coolsd_rt.arrays import Ints
from coolsd_rt.prompts import PAD, Conditioner, WordVocabulary
from coolsd_rt.serve.figures import figures_of
from coolsd_rt.serve.messages import (
    DrawMessage,
    FinalMessage,
    FromEngine,
    PartialMessage,
    ProgressMessage,
    StartedMessage,
)
from coolsd_rt.workflows.call_options import Call
from coolsd_rt.workflows.drawing import Asked, Job, jobs_of
from coolsd_rt.workflows.generate.identity import PIXELS, sha256_pixels
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.partial_images import CodeGrid, PartialImages
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.slots import DrawnImage, SlotLoop, SlotProgress

EVERY = 0.1  # seconds between two messages about the progress of an image


def prepared_image(opened: OpenedEngine, message: DrawMessage) -> tuple[Prepared, Job]:
    """Return what an image is drawn from. Raises UserError if the engine refuses it."""
    opened.check_draws()
    call = Call.of(message.prompt, message.options)
    prepared = Prepared.of_call(opened, call)
    (job,) = jobs_of(call.asked(), opened.conditioner)
    return prepared, job


class ImageWork:
    """An image that waits or is drawn."""

    ended = False

    def __init__(
        self, asked: DrawMessage, prepared: Prepared, job: Job, loop: SlotLoop, send: Callable[[FromEngine], None]
    ) -> None:
        self.job, self.settings = job, prepared.settings
        self._asked, self._prepared, self._loop, self._send = asked, prepared, loop, send
        self._grid = CodeGrid(prepared.opened.description)
        self._partial = PartialImages(self._grid, asked.partial_images)
        self._started = False
        self._told = 0  # rounds that were told
        self._told_at = self._began = time.perf_counter()

    def progress(self, slot: SlotProgress) -> None:
        """Tell what is due after a round."""
        if not self._started:
            self._started, self._began = True, time.perf_counter()
            self._send(StartedMessage(slot.ticket))
        if self._asked.progress and time.perf_counter() - self._told_at >= EVERY:
            self._tell_progress(slot.decided, slot.accepted, slot.num_drafts)
        if len(self._partial.due([0], np.array([slot.decided]))):
            self._show(slot.codes, slot.decided)

    def _tell_progress(self, decided: int, accepted: Sequence[int], num_drafts: Sequence[int]) -> None:
        now, ticket = time.perf_counter(), self._asked.ticket
        since = [[int(count) for count in counts[self._told :]] for counts in (accepted, num_drafts)]
        self._send(ProgressMessage(ticket, int(decided), since[0], since[1], now - self._began))
        self._told, self._told_at = len(accepted), now

    def _show(self, codes: Ints, decided: int) -> None:
        count = np.array([decided])
        rows = int(self._grid.finished(count)[0])
        pixels = self._grid.blanked(self._loop.pixels(self._grid.filled(codes[None], count)[0]), rows)
        self._send(PartialMessage(self._asked.ticket, rows, len(pixels), pixels.tobytes()))

    def finish(self, drawn: DrawnImage) -> None:
        """Send the image."""
        if self._asked.progress and len(drawn.accepted) > self._told:
            self._tell_progress(len(drawn.codes), drawn.accepted, drawn.num_drafts)
        began, job, prepared = time.perf_counter(), self.job, self._prepared
        pixels = self._loop.pixels(drawn.codes)
        figures = {
            **figures_of(job, self.settings, drawn),
            "grid": [self._grid.rows, self._grid.columns],
            "seconds_decode": time.perf_counter() - began,
        }
        said = prepared.provenance(Asked(job.index, job.prompt, job.seed))
        if "plan" in said:
            said["plan"] = figures["plan"]
        self._send(
            FinalMessage(
                drawn.ticket,
                figures,
                {**said, PIXELS: sha256_pixels(pixels)},
                prepared.warnings([job]),
                _text_tokens(prepared.opened.conditioner, job),
                len(pixels),
                pixels.tobytes(),
            )
        )


def _text_tokens(conditioner: Conditioner, job: Job) -> int:
    if isinstance(conditioner, WordVocabulary):  # padded with an id of its own
        return sum(number != PAD for number in job.encoded.ids)
    return conditioner.prefix - job.encoded.start
