"""Writes texts with an opened engine: prompts, chats, streams of text, and where each text ends.

`coolsd-rt generate` prints them, `coolsd_rt.Pipeline` returns them, `coolsd-rt serve` sends them: all of them write
here, in the slots in which images are drawn (`workflows.slots`). Knows prompts and tokens. Does not know terminals or
HTTP, nor how a token is decided.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from coolsd_rt.errors import UserError
from coolsd_rt.prompts import Encoded, TextStream
from coolsd_rt.prompts.chat import Message
from coolsd_rt.runtime.slot_group import DrawnImage, SlotProgress
from coolsd_rt.runtime.statistics import LoopTaken, Statistics
from coolsd_rt.workflows import totals
from coolsd_rt.workflows.drawing import Asked, Job, Settings
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.slots import SlotLoop

Reason = Literal["stop", "length"]
"""Why a text ended: at an end token, or because it has as many tokens as were asked for."""


@dataclass(frozen=True)
class TextAsk:
    """How prompts are read. raw: a prompt is continued as it is. system: the message before it; excludes `raw`."""

    raw: bool = False
    system: str | None = None


@dataclass(frozen=True, eq=False)
class WrittenText:
    """A finished text.

    Attributes:
        job: what was asked for.
        ids: its tokens, the end token included.
        text: without control tokens.
        reason: why it ended.
        rounds: steps of the target after the first token.
        accept_length: tokens per round; NaN without rounds.
        seconds: wall time from its slot to its last token, with the turns of others.
    """

    job: Job
    ids: tuple[int, ...]
    text: str
    reason: Reason
    rounds: int
    accept_length: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {
            "prompt": self.job.prompt, "seed": self.job.seed, "text": self.text, "finish_reason": self.reason,
            "prompt_tokens": len(self.job.encoded.ids), "tokens": len(self.ids), "rounds": self.rounds,
            "mean_acceptance_length": self.accept_length, "seconds": self.seconds,
        }  # fmt: skip


def encode(opened: OpenedEngine, prompt: str, ask: TextAsk) -> Encoded:
    """Return the row of a prompt: the user's message of a chat, or a text. Raises UserError if it is refused."""
    reader = opened.text_reader
    if ask.raw:
        if ask.system is not None:
            raise UserError("a system message", expected="a chat", found="a text to continue", fix="drop one of them")
        return reader.encode_text(prompt)
    if ask.system is None:
        return reader.encode(prompt)
    return reader.encode_chat([_message("system", ask.system), _message("user", prompt)])


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def text_jobs(opened: OpenedEngine, every: Sequence[Asked], ask: TextAsk) -> list[Job]:
    """Return a job for each text. Raises UserError if a prompt is refused."""
    known = {prompt: encode(opened, prompt, ask) for prompt in dict.fromkeys(one.prompt for one in every)}
    return [Job(one.index, one.prompt, one.seed, known[one.prompt]) for one in every]


def bounded(opened: OpenedEngine, settings: Settings, tokens: int | None) -> Settings:
    """Return the settings with a most number of tokens. Raises UserError if the engine has fewer, or writes no text."""
    most = opened.description.dims.tokens
    if settings.bounds is None:
        expected, found = "an engine that writes text", "one that draws images"
        raise UserError("max tokens", expected=expected, found=found, fix="leave it out")
    if tokens is not None and not 1 <= tokens <= most:
        raise UserError("max tokens", expected=f"1 to {most}, the text.length of the engine", found=str(tokens))
    return replace(settings, bounds=replace(settings.bounds, limit=tokens))


@dataclass(frozen=True)
class TextPart:
    """What a text that is being written gained: whole characters, at the end of what came before."""

    job: Job
    text: str


class TextsDrawing:
    """Writes a list of texts, at most `engine.max_batch` at once.

    Attributes:
        loop: the loop that wrote them; None before the first.
        seconds: wall time since `run` or `events` began.
    """

    def __init__(self, opened: OpenedEngine, jobs: Sequence[Job], settings: Settings) -> None:
        """settings: of `bounded`."""
        self._opened, self._jobs, self._settings = opened, jobs, settings
        most, reader = opened.spec.engine.max_batch, opened.text_reader
        self._slots = SlotLoop(opened, most, on_progress=self._progress, on_finished=self._finished)
        self._streams = [TextStream(reader) for _ in jobs]
        self._gained: list[TextPart] = []
        self._parts: list[Statistics] = []
        self._told = False  # whether parts are wanted
        self.loop: LoopTaken | None = None
        self.seconds = 0.0

    @property
    def statistics(self) -> Statistics:
        """The statistics of the texts that are finished."""
        return totals.total(self._parts, self._settings.law.length)

    def run(self) -> Iterator[WrittenText]:
        """Yield each text when it is finished. Raises UserError and CoolsdError as `drawing.draw` does."""
        for event in self.events(parts=False):
            assert isinstance(event, WrittenText)  # no parts were asked for
            yield event

    def events(self, *, parts: bool = True) -> Iterator[TextPart | WrittenText]:
        """Yield what texts gain as it comes, and each text when it is finished. Raises as `run`."""
        began, self._told = time.perf_counter(), parts
        for ticket, job in enumerate(self._jobs):
            self._slots.enter(ticket, job, self._settings)
        while self._slots.busy:
            finished = self._slots.step()
            gained, self._gained = self._gained, []
            yield from gained
            for drawn in finished:
                self.seconds = time.perf_counter() - began
                text = written_text(self._opened, self._jobs[drawn.ticket], drawn, self._settings)
                if parts and (rest := self._streams[drawn.ticket].more(text.ids, last=True)):
                    yield TextPart(text.job, rest)
                yield text

    def _finished(self, statistics: Statistics, loop: LoopTaken) -> None:
        self._parts.append(statistics)
        self.loop = loop

    def _progress(self, texts: Sequence[SlotProgress]) -> None:
        for one in texts if self._told else ():
            if new := self._streams[one.ticket].more(one.codes[: one.decided].tolist()):
                self._gained.append(TextPart(self._jobs[one.ticket], new))


def written_text(opened: OpenedEngine, job: Job, drawn: DrawnImage, settings: Settings) -> WrittenText:
    """Return a finished text of its tokens."""
    ids = tuple(int(code) for code in drawn.codes)
    assert settings.bounds is not None  # `bounded`
    reason: Reason = "stop" if ids[-1] in settings.bounds.ends else "length"
    rounds = len(drawn.accepted)
    mean = 1.0 + sum(drawn.accepted) / rounds if rounds else float("nan")
    return WrittenText(job, ids, opened.text_reader.decode(ids), reason, rounds, mean, drawn.seconds)
