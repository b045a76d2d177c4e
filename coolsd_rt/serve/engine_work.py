"""The work of an engine's process: draws images and writes texts that messages ask for, and tells what came of it.

One thread does everything that touches the engine: it reads all messages that wait, runs one round of the slot loop,
and sends what is due. Knows requests as messages and the slot loop. Does not know what is told of an image or a text
(`image_work`, `text_work`), HTTP, or who sends the messages.
"""

from __future__ import annotations

import queue
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.serve.image_work import ImageWork, prepared_image
from coolsd_rt.serve.messages import (
    CancelMessage,
    DrawMessage,
    FailedMessage,
    FromEngine,
    NoteMessage,
    ReadyMessage,
    RefusedMessage,
    Setup,
    StopMessage,
    ToEngine,
    WriteMessage,
)
from coolsd_rt.serve.text_work import TextWork, prepared_text
from coolsd_rt.workflows.drawing import Job
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.slot_plans import SlotPlans
from coolsd_rt.workflows.slots import DrawnImage, SlotLoop, SlotProgress

SAMPLES = 24  # prompts to try the engine with
_PATH = re.compile(r"(?:^|[\s'\"(:=])(?:~|\.{1,2})?/[^\s/]")


class _Stopped(Exception):
    """The process has been told to stop."""


class EngineWork:
    """A loaded engine and the images or texts that were asked for. send: takes each message to the HTTP process."""

    def __init__(self, opened: OpenedEngine, slots: int, plans: SlotPlans, send: Callable[[FromEngine], None]) -> None:
        self._opened, self._plans, self._send = opened, plans, send
        self._loop = SlotLoop(opened, slots, on_progress=self._progress)
        self._works: dict[int, ImageWork | TextWork] = {}

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
            in_flight = len(self._works) + sum(isinstance(message, DrawMessage | WriteMessage) for message in messages)
            for message in messages:
                if isinstance(message, StopMessage):
                    raise _Stopped
                if isinstance(message, DrawMessage | WriteMessage):
                    self._enter(message, in_flight)
                elif isinstance(message, CancelMessage):
                    self._leave(message.ticket)
            if not self._plans.drafts_pay(len(self._works)):
                self._loop.drop_drafts()
            for drawn in self._loop.step():
                self._finish(drawn)
            for ticket in [ticket for ticket, work in self._works.items() if work.ended]:
                self._leave(ticket)

    def _enter(self, message: DrawMessage | WriteMessage, in_flight: int) -> None:
        try:
            prepared, job = self._prepare(message)
            prepared = self._plans.prepared(prepared, in_flight)
            self._works[message.ticket] = self._work(message, prepared, job)
            self._loop.enter(message.ticket, job, prepared.settings, may_drop_drafts=prepared.plan is not None)
        except UserError as error:
            self._works.pop(message.ticket, None)
            self._send(refusal(message.ticket, error))
        except MemoryError:  # of the process, which starts anew
            raise
        except Exception:  # of this request alone: the others go on
            traceback.print_exc()
            self._works.pop(message.ticket, None)
            self._send(FailedMessage(message.ticket))

    def _prepare(self, message: DrawMessage | WriteMessage) -> tuple[Prepared, Job]:
        if isinstance(message, WriteMessage):
            return prepared_text(self._opened, message)
        return prepared_image(self._opened, message)

    def _work(self, message: DrawMessage | WriteMessage, prepared: Prepared, job: Job) -> ImageWork | TextWork:
        if isinstance(message, WriteMessage):
            return TextWork(message, prepared, job, self._send)
        return ImageWork(message, prepared, job, self._loop, self._send)

    def _leave(self, ticket: int) -> None:
        if self._works.pop(ticket, None) is not None:
            self._loop.leave(ticket)

    def _progress(self, slots: Sequence[SlotProgress]) -> None:
        for slot in slots:
            if (work := self._works.get(slot.ticket)) is not None:
                work.progress(slot)

    def _finish(self, drawn: DrawnImage) -> None:
        if (work := self._works.pop(drawn.ticket, None)) is not None:
            work.finish(drawn)


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
