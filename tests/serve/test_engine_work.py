"""The work of an engine's process, in this one: a real engine, messages in, messages out."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.serve.engine_work import EngineWork, refusal
from coolsd_rt.serve.facts import ServedEngine
from coolsd_rt.serve.messages import (
    CancelMessage,
    DrawMessage,
    FailedMessage,
    FinalMessage,
    FromEngine,
    NoteMessage,
    PartialMessage,
    ReadyMessage,
    RefusedMessage,
    StartedMessage,
    StopMessage,
    ToEngine,
    pack,
    unpack,
)
from coolsd_rt.spec import with_overrides
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.slot_plans import SlotPlans

React = Callable[[FromEngine], list[ToEngine]]


class Bench:
    """An engine's work, with its messages on record. react: what is sent to it upon a message of its."""

    def __init__(self, engine: EngineFolder, slots: int = 1) -> None:
        self.sent: list[FromEngine] = []
        self.inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
        self.react: React = lambda message: []
        setup = ServedEngine(OpenedEngine(engine, None, 1), slots, 8).setup
        self.work = EngineWork.load(setup, self._send)
        self.drawn: list[int] = []  # images that the slots have drawn to their end, told or not
        step = self.slots.step

        def recorded() -> Any:
            images = step()
            self.drawn += [image.ticket for image in images]
            return images

        self.slots.step = recorded

    def _send(self, message: FromEngine) -> None:
        self.sent.append(unpack(pack(message)))  # type: ignore[arg-type]
        for answer in self.react(message):
            self.inbox.put(answer)

    def run(self, *messages: ToEngine, react: React) -> list[FromEngine]:
        self.react, self.sent = react, []
        for message in messages:
            self.inbox.put(message)
        self.work.run(self.inbox)
        return self.sent

    @property
    def slots(self) -> Any:
        return self.work._loop


@pytest.fixture
def bench(tiny_engine: EngineFolder) -> Bench:
    return Bench(tiny_engine)


def finals(sent: list[FromEngine]) -> list[int]:
    return [message.ticket for message in sent if isinstance(message, FinalMessage)]


def stop_after(*tickets: int) -> React:
    """Stop when these images are finished."""
    left = set(tickets)

    def react(message: FromEngine) -> list[ToEngine]:
        if isinstance(message, FinalMessage):
            left.discard(message.ticket)
            return [] if left else [StopMessage()]
        return []

    return react


def test_it_says_that_it_is_ready(bench: Bench) -> None:
    assert any(isinstance(message, ReadyMessage) and message.samples for message in bench.sent)


def test_an_image_that_waits_is_cancelled(bench: Bench) -> None:
    draws = [DrawMessage(ticket, "red apple", {"seed": ticket}) for ticket in (1, 2, 3)]
    sent = bench.run(*draws, CancelMessage(2), react=stop_after(1, 3))
    assert finals(sent) == bench.drawn == [1, 3]
    assert not bench.slots.busy


def test_an_image_that_is_drawn_is_cancelled_before_the_next_round(bench: Bench) -> None:
    def react(message: FromEngine) -> list[ToEngine]:
        if isinstance(message, StartedMessage) and message.ticket == 1:
            return [CancelMessage(1), DrawMessage(2, "blue star", {"plain": True})]
        return stop(message)

    stop = stop_after(2)
    sent = bench.run(DrawMessage(1, "red apple", {"plain": True}, 3), react=react)
    assert finals(sent) == bench.drawn == [2]
    assert not [message for message in sent if isinstance(message, PartialMessage)]
    assert not bench.slots.busy


def test_a_request_that_cannot_be_drawn_harms_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench.work._prepare

    def prepare(message: DrawMessage) -> Any:
        if message.ticket == 4:
            raise RuntimeError("/a/secret/path")
        return real(message)

    monkeypatch.setattr(bench.work, "_prepare", prepare)
    sent = bench.run(
        DrawMessage(1, "red apple", {}),
        DrawMessage(2, "red " * 40, {}),
        DrawMessage(3, "red apple", {"draft_length": 17}),
        DrawMessage(4, "red apple", {}),
        react=stop_after(1),
    )
    refused = [message.ticket for message in sent if isinstance(message, RefusedMessage)]
    assert (refused, [m.ticket for m in sent if isinstance(m, FailedMessage)], finals(sent)) == ([2, 3], [4], [1])


def test_plans_are_measured_between_requests(
    tiny_engine: EngineFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks while plans are tried is drawn before the next trial; the first need not wait for any."""
    monkeypatch.setenv("COOLSD_CACHE", str(tmp_path))
    bench = Bench(tiny_engine, 2)
    opened = bench.work._opened
    opened.spec = with_overrides(opened.spec, {"pacing.kind": "auto"})
    assert any(isinstance(message, ReadyMessage) for message in bench.sent)
    asked = iter(range(1, 4))

    def react(message: FromEngine) -> list[ToEngine]:
        if isinstance(message, NoteMessage):
            if " 2 images" in message.text:  # so one image has been measured
                return [StopMessage()]
            return [DrawMessage(next(asked), "red apple", {}), DrawMessage(next(asked), "blue star", {})]
        return []

    sent = bench.run(react=react)
    notes = [k for k, message in enumerate(sent) if isinstance(message, NoteMessage)]
    assert len(notes) == 2
    assert sorted(finals(sent[notes[0] : notes[1]])) == [1, 2]
    plans = [message.figures["plan"] for message in sent if isinstance(message, FinalMessage)]
    assert (
        plans == [{"draft": None, "draft_length": 0, "plain_from": None}] * 2
    )  # two at once, before anything was known
    assert SlotPlans(opened, 2).counts == [1, 2]
    assert len(list(tmp_path.rglob("*.json"))) == 1  # what is known is on record


def test_an_error_of_a_round_ends_the_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def step() -> Any:
        raise MemoryError

    monkeypatch.setattr(bench.slots, "step", step)
    with pytest.raises(MemoryError):
        bench.run(DrawMessage(1, "red apple", {}), react=stop_after(1))


@pytest.mark.parametrize("changed", [{"fingerprint": "0" * 16}, {"files": {}}])
def test_another_engine_in_its_place_is_refused(tiny_engine: EngineFolder, changed: dict[str, Any]) -> None:
    setup = ServedEngine(OpenedEngine(tiny_engine, None, 1), 1, 8).setup
    with pytest.raises(CoolsdError, match="as it was when the server started, found another"):
        EngineWork.load(replace(setup, **changed), lambda message: None)


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        ("/srv/models/t5", False),
        ("file '/srv/models/t5' is gone", False),
        ("../t5/config.json", False),
        ("~/models", False),
        ("one of exponential/linear", True),
        ("the word a/b", True),
    ],
)
def test_no_path_is_told(part: str, kept: bool) -> None:
    message = refusal(1, UserError("the prompt", expected=part, found="x"))
    assert message.expected == (part if kept else "")
    assert refusal(1, UserError(part)).what == (part if kept else "the request")
