"""The work of an engine's process: draws what messages ask for, and tells what came of it.

One thread does everything that touches the engine: it reads all messages that wait, runs one round of the slot loop,
and sends what is due. Knows requests as messages and the slot loop. Does not know HTTP or who sends the messages.
"""

from __future__ import annotations

import queue
import re
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coolsd_rt.arrays import Ints
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.prompts import PAD, WordVocabulary
from coolsd_rt.serve.messages import (
    CancelMessage,
    DrawMessage,
    FailedMessage,
    FinalMessage,
    FromEngine,
    NoteMessage,
    PartialMessage,
    ProgressMessage,
    ReadyMessage,
    RefusedMessage,
    Setup,
    StartedMessage,
    StopMessage,
    ToEngine,
)
from coolsd_rt.workflows.call_options import Call
from coolsd_rt.workflows.drawing import Asked, Job, jobs_of
from coolsd_rt.workflows.generate.identity import PIXELS, sha256_pixels
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.partial_images import CodeGrid, PartialImages
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.slot_plans import SlotPlans
from coolsd_rt.workflows.slots import DrawnImage, SlotLoop, SlotProgress

EVERY = 0.1  # seconds between two messages about the progress of an image
SAMPLES = 24  # prompts to try the engine with
_PATH = re.compile(r"(?:^|[\s'\"(:=])(?:~|\.{1,2})?/[^\s/]")


class _Stopped(Exception):
    """The process has been told to stop."""


@dataclass
class _Image:
    """An image that waits or is drawn."""

    asked: DrawMessage
    prepared: Prepared
    job: Job
    partial: PartialImages
    started: bool = False
    told: int = 0  # rounds that were told
    told_at: float = field(default_factory=time.perf_counter)
    began: float = field(default_factory=time.perf_counter)


class EngineWork:
    """A loaded engine and the images that were asked for. send: takes each message to the HTTP process."""

    def __init__(self, opened: OpenedEngine, slots: int, plans: SlotPlans, send: Callable[[FromEngine], None]) -> None:
        self._opened, self._plans, self._send = opened, plans, send
        self._grid = CodeGrid(opened.description)
        self._loop = SlotLoop(opened, slots, on_progress=self._progress)
        self._images: dict[int, _Image] = {}

    @staticmethod
    def load(setup: Setup, send: Callable[[FromEngine], None]) -> EngineWork:
        """Open the engine, load all of it, and say that it is ready.

        Raises CoolsdError if the engine is not the one that was checked before the port opened, or is broken.
        """
        opened = OpenedEngine.at(Path(setup.folder), None, setup.threads)
        found = opened.manifest
        files = {name: record.sha256 for name, record in found.files.items()}
        if found.fingerprint != setup.fingerprint or files != dict(setup.files):
            expected = f"the engine {setup.fingerprint} as it was when the server started"
            raise CoolsdError(setup.folder, expected=expected, found="another", fix="start the server again")
        opened.settings()
        opened.load()
        plans = SlotPlans(opened, setup.slots)
        plans.read()
        work = EngineWork(opened, setup.slots, plans, send)
        samples = opened.conditioner.samples()
        send(ReadyMessage(samples[:: max(1, len(samples) // SAMPLES)][:SAMPLES]))
        return work

    def run(self, inbox: queue.SimpleQueue[ToEngine]) -> None:
        """Draw until told to stop. An error of a round ends the process: the state of the others is not known then.

        While nobody waits, plans that this machine does not know are measured, trial by trial.
        """

        def note(images: int) -> None:
            several = "1 image" if images == 1 else f"{images} images"
            self._send(NoteMessage(f"trying how to draft for {several} at once, between requests"))

        try:
            self._plans.measure(lambda: self._serve(inbox, until_idle=True), note)
            self._serve(inbox)
        except _Stopped:
            return

    def _serve(self, inbox: queue.SimpleQueue[ToEngine], *, until_idle: bool = False) -> None:
        """Draw what is asked for. Raises _Stopped when told to stop."""
        while True:
            messages = list(_waiting(inbox, block=not until_idle and not self._loop.busy))
            if until_idle and not messages and not self._loop.busy:
                return
            in_flight = len(self._images) + sum(isinstance(message, DrawMessage) for message in messages)
            for message in messages:
                if isinstance(message, StopMessage):
                    raise _Stopped
                if isinstance(message, DrawMessage):
                    self._enter(message, in_flight)
                elif isinstance(message, CancelMessage):
                    self._leave(message.ticket)
            if not self._plans.drafts_pay(len(self._images)):
                self._loop.drop_drafts()
            for drawn in self._loop.step():
                self._finish(drawn)

    def _enter(self, message: DrawMessage, in_flight: int) -> None:
        try:
            prepared, job = self._prepare(message)
            prepared = self._plans.prepared(prepared, in_flight)
            self._images[message.ticket] = _Image(
                message, prepared, job, PartialImages(self._grid, message.partial_images)
            )
            self._loop.enter(message.ticket, job, prepared.settings, may_drop_drafts=prepared.plan is not None)
        except UserError as error:
            self._images.pop(message.ticket, None)
            self._send(refusal(message.ticket, error))
        except MemoryError:  # of the process, which starts anew
            raise
        except Exception:  # of this request alone: the others go on
            traceback.print_exc()
            self._images.pop(message.ticket, None)
            self._send(FailedMessage(message.ticket))

    def _prepare(self, message: DrawMessage) -> tuple[Prepared, Job]:
        call = Call.of(message.prompt, message.options)
        prepared = Prepared.of_call(self._opened, call)
        (job,) = jobs_of(call.asked(), self._opened.conditioner)
        return prepared, job

    def _leave(self, ticket: int) -> None:
        if self._images.pop(ticket, None) is not None:
            self._loop.leave(ticket)

    def _progress(self, slots: Sequence[SlotProgress]) -> None:
        for slot in slots:
            image = self._images.get(slot.ticket)
            if image is None:
                continue
            if not image.started:
                image.started, image.began = True, time.perf_counter()
                self._send(StartedMessage(slot.ticket))
            if image.asked.progress and time.perf_counter() - image.told_at >= EVERY:
                self._tell_progress(image, slot.decided, slot.accepted, slot.num_drafts)
            if len(image.partial.due([0], np.array([slot.decided]))):
                self._show(image, slot.codes, slot.decided)

    def _tell_progress(self, image: _Image, decided: int, accepted: Sequence[int], num_drafts: Sequence[int]) -> None:
        now, ticket = time.perf_counter(), image.asked.ticket
        since = [[int(count) for count in counts[image.told :]] for counts in (accepted, num_drafts)]
        self._send(ProgressMessage(ticket, int(decided), since[0], since[1], now - image.began))
        image.told, image.told_at = len(accepted), now

    def _show(self, image: _Image, codes: Ints, decided: int) -> None:
        count = np.array([decided])
        rows = int(self._grid.finished(count)[0])
        pixels = self._grid.blanked(self._loop.pixels(self._grid.filled(codes[None], count)[0]), rows)
        self._send(PartialMessage(image.asked.ticket, rows, len(pixels), pixels.tobytes()))

    def _finish(self, drawn: DrawnImage) -> None:
        image = self._images.pop(drawn.ticket, None)
        if image is None:
            return
        if image.asked.progress and len(drawn.accepted) > image.told:
            self._tell_progress(image, len(drawn.codes), drawn.accepted, drawn.num_drafts)
        began = time.perf_counter()
        pixels = self._loop.pixels(drawn.codes)
        figures = {**self._figures(image, drawn), "seconds_decode": time.perf_counter() - began}
        job = image.job
        said = image.prepared.provenance(Asked(job.index, job.prompt, job.seed))
        if "plan" in said:
            said["plan"] = figures["plan"]
        self._send(
            FinalMessage(
                drawn.ticket,
                figures,
                {**said, PIXELS: sha256_pixels(pixels)},
                image.prepared.warnings([job]),
                self._text_tokens(job),
                len(pixels),
                pixels.tobytes(),
            )
        )

    def _text_tokens(self, job: Job) -> int:
        conditioner, encoded = self._opened.conditioner, job.encoded
        if isinstance(conditioner, WordVocabulary):  # padded with an id of its own
            return sum(number != PAD for number in encoded.ids)
        return conditioner.prefix - encoded.start

    def _figures(self, image: _Image, drawn: DrawnImage) -> dict[str, Any]:
        rounds, tokens = len(drawn.accepted), len(drawn.codes)
        settings = image.prepared.settings
        return {
            "seed": image.job.seed,
            "tokens": tokens,
            "rounds": rounds,
            "mean_acceptance_length": 1 + sum(drawn.accepted) / rounds if rounds else None,
            "accepted": [int(count) for count in drawn.accepted],
            "num_drafts": [int(count) for count in drawn.num_drafts],
            "plan": {
                "draft": None if settings.plain else settings.drafter,
                "draft_length": settings.law.length,
                "plain_from": drawn.plain_from,
            },
            "seconds_queue": drawn.seconds_waiting,
            "seconds": drawn.seconds,
            "tokens_per_second": tokens / drawn.seconds if drawn.seconds else None,
            "grid": [self._grid.rows, self._grid.columns],
        }


def _waiting(inbox: queue.SimpleQueue[ToEngine], block: bool) -> Iterator[ToEngine]:
    """Yield all messages that are there. block: wait for the first."""
    try:
        yield inbox.get(block=block)
        while True:
            yield inbox.get_nowait()
    except queue.Empty:
        return


def refusal(ticket: int, error: UserError) -> RefusedMessage:
    """Return an error for a client. Parts that name a path of this machine are left out."""
    parts = ["" if _PATH.search(part) else part for part in (error.what, error.expected, error.found, error.fix)]
    return RefusedMessage(ticket, parts[0] or "the request", *parts[1:])
