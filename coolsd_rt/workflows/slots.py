"""Draws jobs in slots and decodes their codes to pixels.

`coolsd-rt generate` writes each image to a file, `coolsd_rt.Pipeline` returns it to the caller, `coolsd-rt serve` sends
it to a client: all of them draw here. A list of jobs does not go through in batches: each image enters as soon as one
before it is finished. Knows jobs, settings and engines. Does not know files or who receives the images.

Legend: N image tokens, F pixels a side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coolsd_rt.arrays import Ints, Pixels
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.progress import Progress
from coolsd_rt.runtime.self_decoding import Loop
from coolsd_rt.runtime.slot_group import DrawnImage, ImageRequest, SlotProgress
from coolsd_rt.runtime.slots import SlotHooks, Slots
from coolsd_rt.runtime.statistics import LoopTaken, Statistics
from coolsd_rt.workflows import drawing, totals
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.opened import OpenedEngine

__all__ = ["DecodedImage", "DrawnImage", "JobsDrawing", "SlotLoop", "SlotProgress"]

OnSlots = Callable[[Sequence[SlotProgress]], None]
OnJobsProgress = Callable[[Sequence[Job], Progress], None]  # called with the jobs in slots and their progress


class SlotLoop:
    """Slots of an opened engine (`runtime.slots.Slots`). The first image loads the engine, if it is not loaded."""

    def __init__(
        self,
        opened: OpenedEngine,
        slots: int,
        *,
        loop: Loop = "auto",
        on_progress: OnSlots | None = None,
        on_finished: Callable[[Statistics, LoopTaken], None] | None = None,
    ) -> None:
        """loop: see `runtime.round.generate`. on_progress, on_finished: see `SlotHooks`."""
        self._opened = opened
        self._slots = Slots(slots, self._open_session, loop, SlotHooks(on_progress, on_finished))

    @property
    def waiting(self) -> int:
        """Number of images that wait for a slot."""
        return self._slots.waiting

    @property
    def running(self) -> int:
        """Number of images that have a slot."""
        return self._slots.running

    @property
    def busy(self) -> bool:
        """Whether a `step` has anything to do."""
        return self._slots.busy

    def enter(self, ticket: int, job: Job, settings: Settings, may_drop_drafts: bool = False) -> None:
        """Let the image of a job wait for a slot. ticket: a number that no other image here has."""
        s, item = settings, (job, settings)
        request = ImageRequest(
            item, s.law, s.sampling, job.seed, s.drafter, s.forced, may_drop_drafts, ngrams=s.ngrams, tree=s.tree
        )
        if s.bounds is not None:
            ids, bounds = job.encoded.ids, s.bounds
            request = replace(request, ends=bounds.ends, limit=bounds.limit, first=job.encoded.start, prompt=ids)
        self._slots.enter(ticket, request)

    def drop_drafts(self) -> None:
        """See `Slots.drop_drafts`."""
        self._slots.drop_drafts()

    def leave(self, ticket: int) -> None:
        """Drop an image that is not wanted any more; nothing happens if there is none. Its slot is free at once."""
        self._slots.leave(ticket)

    def step(self) -> list[DrawnImage]:
        """Let waiting images enter and run one round of one group; on an engine that draws batches, draw one.

        Returns the images that are finished. Raises UserError and CoolsdError as `drawing.draw` does.
        """
        return self._slots.step()

    def pixels(self, codes: Ints) -> Pixels:
        """Decode the codes int64 [N] of an image to RGB uint8 [F, F, 3]."""
        image: Pixels = np.asarray(self._opened.engine.decode_images(codes[None]))[0]
        return image

    def _open_session(self, requests: Sequence[ImageRequest]) -> Session:
        jobs, opened = [request.item[0] for request in requests], self._opened
        return drawing.open_session(opened.engine, jobs, opened.conditioner, requests[0].item[1])


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """A finished image of a request.

    Attributes:
        job: the image that was asked for.
        codes: int64 [N].
        pixels: RGB uint8 [F, F, 3].
    """

    job: Job
    codes: Ints
    pixels: Pixels


class JobsDrawing:
    """Draws a list of jobs, at most `engine.max_batch` at once.

    Attributes:
        loop: the loop that drew them; None before the first.
        seconds_image: wall time of the condition graph, the image graph and the allocation of caches.
        seconds_load: wall time of loading the image graph, if it was left for later.
        done: number of finished images.
    """

    def __init__(
        self,
        opened: OpenedEngine,
        jobs: Sequence[Job],
        settings: Settings,
        on_progress: OnJobsProgress | None = None,
        loop: Loop = "auto",
    ) -> None:
        """loop: see `runtime.round.generate`."""
        self._opened, self._jobs, self._settings, self._tell = opened, jobs, settings, on_progress
        most, tell = opened.spec.engine.max_batch, None if on_progress is None else self._progress
        self._slots = SlotLoop(opened, most, loop=loop, on_progress=tell, on_finished=self._finished)
        self._parts: list[Statistics] = []
        self._rounds = self._accepted = 0  # of the images that are finished
        self.loop: LoopTaken | None = None
        self.seconds_image = self.seconds_load = 0.0
        self.done = 0

    @property
    def statistics(self) -> Statistics:
        """The statistics of the images that are finished."""
        return totals.total(self._parts, self._settings.law.length)

    def run(self) -> Iterator[DecodedImage]:
        """Yield each image when it is finished. Raises UserError and CoolsdError as `drawing.draw` does."""
        for ticket, job in enumerate(self._jobs):
            self._slots.enter(ticket, job, self._settings)
        while self._slots.busy:
            for drawn in self._slots.step():
                self.seconds_load += self._opened.load_graph("image")
                began = time.perf_counter()
                pixels = self._slots.pixels(drawn.codes)
                self.seconds_image += time.perf_counter() - began
                self.done += 1
                yield DecodedImage(self._jobs[drawn.ticket], drawn.codes, pixels)

    def _finished(self, statistics: Statistics, loop: LoopTaken) -> None:
        self._parts.append(statistics)
        self._rounds += int(statistics.rounds.sum())
        self._accepted += int(statistics.accepts.sum())
        self.loop = loop
        self.seconds_image += statistics.seconds_prefix

    def _progress(self, images: Sequence[SlotProgress]) -> None:
        assert self._tell is not None  # else this is no hook
        decided = np.array([image.decided for image in images], np.int64)
        self._tell(
            [self._jobs[image.ticket] for image in images],
            Progress(decided, self._accept_length(images), lambda: np.stack([image.codes for image in images])),
        )

    def _accept_length(self, images: Sequence[SlotProgress]) -> float:
        """Return the tokens per round of all images so far."""
        rounds = self._rounds + sum(len(image.accepted) for image in images)
        if rounds == self._rounds:  # of a device's loop, or before the first round
            return images[0].mean_acceptance_length
        return 1.0 + (self._accepted + sum(sum(image.accepted) for image in images)) / rounds
