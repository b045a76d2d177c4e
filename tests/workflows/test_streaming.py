"""`Pipeline.stream`: partial images and final ones, in order; and nothing is left of a stream that is given up."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coolsd_rt import FinalImage, PartialImage, Pipeline, UserError
from coolsd_rt.backends import Description
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.workflows import opening
from coolsd_rt.workflows.handoff import Cancelled, Handoff
from coolsd_rt.workflows.partial_images import BLANK
from coolsd_rt.workflows.streaming import ImageStream, StreamEvent
from tests.workflows.fakes import DIMS, SIDE, FakeEngine, FakeSession
from tests.workflows.test_prefixes import FORCED

PROMPTS = ["red apple", "yellow star", "green apple"]  # of an engine that draws two at once


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that `pipe` loads."""
    return FakeEngine()


@pytest.fixture
def pipe(engine: Path, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setattr(opening, "load_engine", lambda *_: fake)
    return Pipeline.load(engine)


def drawing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "coolsd-rt-stream"]


def parts_of(events: list[StreamEvent], index: int) -> list[PartialImage]:
    return [event for event in events if isinstance(event, PartialImage) and event.index == index]


def finals_of(events: list[StreamEvent]) -> list[FinalImage]:
    return [event for event in events if isinstance(event, FinalImage)]


def test_partial_images_and_then_the_image(pipe: Pipeline) -> None:
    whole = pipe(PROMPTS, seed=4)
    stream = pipe.stream(PROMPTS, seed=4, partial_images=3)
    events = list(stream)
    assert [event.index for event in finals_of(events)] == [0, 1, 2]
    for index, record in enumerate(whole.records):
        parts = parts_of(events, index)
        assert 1 <= len(parts) <= 3
        rows = [part.rows for part in parts]
        assert rows == sorted(set(rows))
        assert all((part.prompt, part.seed, part.total_rows) == (record.prompt, record.seed, 4) for part in parts)
        places = [events.index(part) for part in parts]
        (final,) = (event for event in finals_of(events) if event.index == index)
        assert max(places) < events.index(final)
        assert np.array_equal(final.record.tokens, record.tokens)
        assert final.image.tobytes() == record.image.tobytes()
        assert final.record.provenance == record.provenance
    assert stream.output.images == [event.image for event in finals_of(events)]
    assert stream.output.stats.rounds == whole.stats.rounds
    assert not drawing_threads()


def test_finished_rows_are_the_images_and_the_others_are_blank(pipe: Pipeline) -> None:
    """To the pixel, of a decoder that looks at one code at a time."""
    events = list(pipe.stream(PROMPTS, partial_images=3))
    finals = {event.index: np.asarray(event.image) for event in finals_of(events)}
    parts = [event for event in events if isinstance(event, PartialImage)]
    assert parts
    for part in parts:
        shown, drawn = np.asarray(part.image), SIDE * part.rows // part.total_rows
        assert np.array_equal(shown[:drawn], finals[part.index][:drawn])
        assert (shown[drawn:] == BLANK).all()
        assert 0 < drawn < SIDE


def test_a_real_decoder_sees_an_image_that_goes_on(tiny_engine: EngineFolder) -> None:
    """Its normalisations reach everywhere: finished rows are nearer to the final ones than to other images'."""
    with Pipeline.load(tiny_engine.folder, threads=1) as pipe:
        events = list(pipe.stream(["red apple", "blue star"], images_per_prompt=2, partial_images=3))
    finals = {event.index: np.asarray(event.image, np.float64) for event in finals_of(events)}
    far, others = [], []
    for part in (event for event in events if isinstance(event, PartialImage)):
        drawn = SIDE * part.rows // part.total_rows
        shown = np.asarray(part.image, np.float64)
        assert (shown[drawn:] == BLANK).all()
        rows = slice(0, max(1, drawn - SIDE // 4))  # a row of codes away from the seam
        far.append(np.abs(shown[rows] - finals[part.index][rows]).mean())
        others += [np.abs(shown[rows] - finals[k][rows]).mean() for k in finals if k != part.index]
    assert np.mean(far) < np.mean(others) * 0.75  # of 4 x 4 codes; tests/test_python_page.py has the demo's


def test_every_code_that_is_decoded_is_one(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line ends and an end stand in their places, and no other id that is no code reaches the decoder."""
    seen: list[Any] = []

    class Watching(FakeEngine):
        def decode_images(self, codes: Any) -> Any:
            seen.append(np.array(codes))
            return super().decode_images(codes)

    open_engine(engine).with_manifest(contract={**Description(DIMS, 3, SIDE).as_dict(), "forced": list(FORCED)})
    monkeypatch.setattr(opening, "load_engine", lambda *_: Watching())
    pipe = Pipeline.load(engine)
    events = list(pipe.stream(PROMPTS, partial_images=2))
    forced = np.asarray(FORCED)
    finals = {event.index: event.record.tokens for event in finals_of(events)}
    parts = [event for event in events if isinstance(event, PartialImage)]
    assert {part.total_rows for part in parts} == {3}
    assert len(seen) > 2  # beside those of the two batches
    codes = np.concatenate(seen)
    assert (codes[:, forced >= 0] == forced[forced >= 0]).all()
    assert codes.min() >= 0
    every = {tuple(tokens.tolist()) for tokens in finals.values()}
    made_up = [row for row in codes.tolist() if tuple(row) not in every]
    assert made_up
    for row in made_up:  # of a partial image: its codes are all of its finished rows, or decided already
        rows = np.array(row)[forced < 0].reshape(3, 4)
        assert any(set(rows.ravel()) <= set(np.asarray(t)[forced < 0].tolist()) for t in finals.values())


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_no_more_partial_images_than_asked_for(pipe: Pipeline, count: int) -> None:
    events = list(pipe.stream(PROMPTS, partial_images=count))
    assert len(finals_of(events)) == 3
    assert all(len(parts_of(events, index)) <= min(count, 3) for index in range(3))
    assert bool(parts_of(events, 0)) == bool(count)


def leave_by_break(pipe: Pipeline) -> None:
    for _ in pipe.stream(PROMPTS):
        break


def leave_by_close(pipe: Pipeline) -> None:
    stream = pipe.stream(PROMPTS)
    next(stream)
    stream.close()
    stream.close()
    assert list(stream) == []
    with pytest.raises(UserError, match=r"the stream: expected an exhausted stream, found one that was closed early"):
        _ = stream.output


def leave_by_with(pipe: Pipeline) -> None:
    with pipe.stream(PROMPTS) as stream:
        next(stream)


def leave_by_forgetting(pipe: Pipeline) -> None:
    stream: ImageStream | None = pipe.stream(PROMPTS)
    assert stream is not None
    next(stream)
    stream = None
    gc.collect()


def leave_by_an_error(pipe: Pipeline) -> None:
    def fail() -> None:
        for _ in pipe.stream(PROMPTS):
            raise KeyError

    with pytest.raises(KeyError) as caught:
        fail()
    caught.value.__traceback__ = None  # its frames hold the stream
    del caught
    gc.collect()


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_close, leave_by_with, leave_by_forgetting, leave_by_an_error]
)
def test_a_stream_that_is_left_stops_drawing(pipe: Pipeline, fake: FakeEngine, leave: Any) -> None:
    leave(pipe)
    assert not drawing_threads()
    assert len(fake.opened) == 1  # the second batch was never begun
    assert len(pipe("red apple").images) == 1  # and the pipeline is free


def test_to_close_ends_the_drawing_with_the_round_under_way(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the next image: half of this one is still to come, and nothing of it is shown."""
    rounds, closed = [0], threading.Event()
    target, cancel = FakeSession.target, Handoff.cancel

    def step(self: FakeSession, ids: Any, pos: Any) -> Any:
        rounds[0] += 1
        if rounds[0] > DIMS.tokens // 2:  # the prefill decides the first token, each step of plain decoding one more
            closed.wait()
        return target(self, ids, pos)

    def cancelled(self: Handoff[Any]) -> None:
        cancel(self)
        closed.set()

    monkeypatch.setattr(FakeSession, "target", step)
    monkeypatch.setattr(Handoff, "cancel", cancelled)
    stream = pipe.stream("red apple", partial_images=1, plain=True)
    assert isinstance(next(stream), PartialImage)
    stream.close()
    assert rounds[0] == DIMS.tokens // 2 + 1


def test_a_stream_that_was_not_begun_holds_nothing(pipe: Pipeline, fake: FakeEngine) -> None:
    stream = pipe.stream(PROMPTS)
    assert len(pipe("red apple").images) == 1
    assert len(fake.opened) == 1
    assert len(finals_of(list(stream))) == 3


def test_the_thread_of_an_open_stream_gets_an_error_and_others_wait(pipe: Pipeline) -> None:
    stream, drawn = pipe.stream(PROMPTS), list[int]()
    next(stream)
    with pytest.raises(UserError, match=r"found an open stream, .*; exhaust the stream or close it first"):
        pipe("red apple")
    other = threading.Thread(target=lambda: drawn.append(len(pipe(PROMPTS).images)))
    other.start()
    assert len(finals_of(list(stream))) == 3
    other.join()
    assert drawn == [3]


def test_to_close_the_pipeline_closes_its_stream(pipe: Pipeline) -> None:
    stream = pipe.stream(PROMPTS)
    next(stream)
    pipe.close()
    assert not drawing_threads()
    assert list(stream) == []
    waiting = pipe.closed
    assert waiting


def test_a_stream_that_another_thread_closes_says_so(pipe: Pipeline) -> None:
    """Or it would look like one that is exhausted."""
    stream, found, begun = pipe.stream(PROMPTS * 50, partial_images=0), list[BaseException](), threading.Event()

    def take() -> None:
        try:
            for _ in stream:
                begun.set()
        except UserError as error:
            found.append(error)

    taker = threading.Thread(target=take)
    taker.start()
    begun.wait()
    pipe.close()
    taker.join()
    assert ["closed while it was read" in str(error) for error in found] in ([True], [])  # [] if it was between two
    with pytest.raises(UserError):
        _ = stream.output


def test_what_drawing_raises_reaches_who_takes_the_events(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = FakeEngine.open, [0]

    def broken(self: FakeEngine, *given: Any) -> Any:
        count[0] += 1
        if count[0] == 2:
            raise ZeroDivisionError("the second batch")
        return real(self, *given)

    monkeypatch.setattr(FakeEngine, "open", broken)
    events: list[StreamEvent] = []
    with pytest.raises(ZeroDivisionError, match="the second batch"):
        events.extend(iter(pipe.stream(PROMPTS)))
    assert not drawing_threads()
    assert len(pipe("red apple").images) == 1


def test_a_prompt_that_cannot_be_read_is_refused_at_the_first_event(pipe: Pipeline) -> None:
    with pytest.raises(UserError):
        next(pipe.stream("x" * 100_000))
    assert not drawing_threads()


def test_a_handoff_hands_over_in_order_and_ends() -> None:
    handoff: Handoff[int] = Handoff()

    def give() -> None:
        for item in range(5):
            handoff.put(item)
        handoff.end(KeyError("over"))

    giver = threading.Thread(target=give)
    giver.start()
    assert [handoff.get() for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError, match="over"):
        handoff.get()
    giver.join()
    handoff.cancel()
    with pytest.raises(Cancelled):
        handoff.put(1)
    with pytest.raises(Cancelled):
        handoff.check()
    with pytest.raises(StopIteration):
        handoff.get()
