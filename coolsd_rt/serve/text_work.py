"""One text in an engine's process: what it gains after each round, where a stop string ends it, and its last message.

Knows characters, tokens and messages. Does not know the texts beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from coolsd_rt.errors import UserError
from coolsd_rt.prompts import Encoded, TextStream
from coolsd_rt.serve.figures import figures_of
from coolsd_rt.serve.messages import (
    FromEngine,
    GainedMessage,
    Prompt,
    StartedMessage,
    WriteMessage,
    WrittenMessage,
)
from coolsd_rt.serve.stop_strings import StopStrings
from coolsd_rt.workflows.call_options import Call
from coolsd_rt.workflows.drawing import Job
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.slots import DrawnImage, SlotProgress
from coolsd_rt.workflows.texts import Reason, bounded, written_text


def prepared_text(opened: OpenedEngine, message: WriteMessage) -> tuple[Prepared, Job]:
    """Return what a text is written from. Raises UserError if the engine refuses it."""
    encoded = _encoded(opened, message.prompt)
    call = Call.of("", message.options)
    prepared = Prepared.of_call(opened, call)
    prepared = prepared.with_asked(bounded(opened, prepared.asked, call.max_tokens))
    return prepared, Job(0, "", call.seed, encoded)


def _encoded(opened: OpenedEngine, prompt: Prompt) -> Encoded:
    reader = opened.text_reader
    if isinstance(prompt, str):
        return reader.encode_text(prompt)
    messages = [part for part in prompt if isinstance(part, Mapping)]
    if messages:
        return reader.encode_chat(messages)
    ids = [part for part in prompt if isinstance(part, int)]
    most = opened.description.dims.vocab - 1
    wrong = [number for number in ids if not 0 <= number <= most]
    if wrong:
        raise UserError("prompt", expected=f"token ids from 0 to {most}", found=str(wrong[0])[:20])
    return reader.encode_ids(ids)


class TextWork:
    """A text that waits or is written. ended: a stop string has ended it, and its last message was sent."""

    def __init__(self, asked: WriteMessage, prepared: Prepared, job: Job, send: Callable[[FromEngine], None]) -> None:
        self.job, self.settings = job, prepared.settings
        self._asked, self._prepared, self._send = asked, prepared, send
        self._stream, self._stop = TextStream(prepared.opened.text_reader), StopStrings(asked.stop)
        self._read = 0  # tokens that were read
        self._entered = time.perf_counter()
        self._began: float | None = None
        self.ended = False

    def progress(self, slot: SlotProgress) -> None:
        """Tell what the text gained in a round, and end it if that holds a stop string."""
        if self._began is None:
            self._began = time.perf_counter()
            self._send(StartedMessage(slot.ticket))
        if self.ended or not (self._asked.parts or self._stop.any):
            return
        ids = [int(code) for code in slot.codes[: slot.decided]]
        gained, tokens = self._gained(ids)
        if self._asked.parts and gained:
            self._send(GainedMessage(slot.ticket, gained))
        if self._stop.found:
            self._end(slot, tokens)

    def _gained(self, ids: Sequence[int]) -> tuple[str, int]:
        """Return what the text gained, and the tokens after which it ends or goes on.

        With stop strings token by token: which token ends the text does not depend on rounds.
        """
        gained = ""
        for count in range(self._read + 1 if self._stop.any else len(ids), len(ids) + 1):
            gained += self._stop.more(self._stream.more(ids[:count]))
            if self._stop.found:
                return gained, count
        self._read = len(ids)
        return gained, len(ids)

    def _end(self, slot: SlotProgress, tokens: int) -> None:
        self.ended = True
        now, began = time.perf_counter(), self._began or self._entered
        rounds = tuple(slot.accepted), tuple(slot.num_drafts)
        codes = slot.codes[:tokens].copy()
        self._tell(DrawnImage(slot.ticket, codes, *rounds, began - self._entered, now - began), self._stop.text, "stop")

    def finish(self, drawn: DrawnImage) -> None:
        """Send the rest of the text and its figures."""
        if self.ended:
            return
        written = written_text(self._prepared.opened, self.job, drawn, self.settings)
        text, reason = written.text, written.reason
        if self._asked.parts or self._stop.any:
            rest = self._stop.more(self._stream.more(written.ids, last=True), last=True)
            if self._asked.parts and rest:
                self._send(GainedMessage(drawn.ticket, rest))
            if self._stop.found:
                text, reason = self._stop.text, "stop"
        self._tell(drawn, text, reason)

    def _tell(self, drawn: DrawnImage, text: str, reason: Reason) -> None:
        figures = figures_of(self.job, self.settings, drawn)
        warnings = self._prepared.warnings([self.job])
        tokens = len(self.job.encoded.ids)
        self._send(WrittenMessage(drawn.ticket, figures, warnings, tokens, text, reason))
