"""`Pipeline.close`: what it waits for, what it refuses, and what is refused after it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt import Pipeline, UserError
from coolsd_rt.workflows.turns import Turns


def test_closed_is_closed(engine: Path) -> None:
    with Pipeline.load(engine) as pipe:
        assert len(pipe("red apple").images) == 1
    assert pipe.closed
    pipe.close()
    for use in (lambda: pipe("red apple"), lambda: pipe.stream("red apple")):
        with pytest.raises(
            UserError, match=r"the pipeline: expected an open pipeline, found a closed pipeline; load it"
        ):
            use()


def test_a_call_that_waits_while_it_is_closed_is_refused(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call under way is finished."""
    pipe, turns, go = Pipeline.load(engine), threading.Semaphore(0), threading.Event()
    real, results = Turns.take, dict[str, Any]()

    def take(self: Turns) -> None:
        turns.release()
        real(self)

    def call(name: str, **options: Any) -> threading.Thread:
        def work() -> None:
            try:
                results[name] = len(pipe("red apple", **options).images)
            except UserError as error:
                results[name] = str(error)

        thread = threading.Thread(target=work)
        thread.start()
        turns.acquire()  # it has its turn, or waits for it
        return thread

    monkeypatch.setattr(Turns, "take", take)
    threads = [call("first", on_progress=lambda *_: go.wait()), call("second")]
    threads.append(threading.Thread(target=pipe.close))
    threads[-1].start()
    turns.acquire()
    go.set()
    for thread in threads:
        thread.join()
    assert results["first"] == 1
    assert "found a closed pipeline" in results["second"]


def test_a_callback_cannot_close_its_pipeline(engine: Path) -> None:
    """It is refused, and the pipeline stays open."""
    pipe = Pipeline.load(engine)
    with pytest.raises(UserError, match="expected no other call of this thread under way"):
        pipe("red apple", on_progress=lambda *_: pipe.close())
    assert not pipe.closed
    assert len(pipe("red apple").images) == 1
    pipe.close()
    assert pipe.closed
