"""Where the CUDA graph cannot be had, and where memory is out: on a CPU, with CUDA's own parts replaced."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from coolsd_rt.contract import ModelDims
from coolsd_rt.device import cuda_graph as capture_module
from coolsd_rt.device import memory, program
from coolsd_rt.device.cuda_graph import capture, first_line
from coolsd_rt.device.engine import DeviceEngine
from coolsd_rt.device.memory import BatchShape, refused
from coolsd_rt.device.program import Programs
from coolsd_rt.errors import CoolsdError
from tests.device.test_device_rounds import CASES, PROMPTS, draw, engine_of

SAID = "CUDA error: operation not permitted when stream is capturing\nCUDA kernel errors might be ..."


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """CUDA's own parts of a capture, replaced: what was called."""
    called: list[str] = []
    stream = SimpleNamespace(device_index=0)
    graph = SimpleNamespace(replay=lambda: called.append("replay"), pool=lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *a: stream)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda *a: stream)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda s: called.append("stream back"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: called.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "graph", lambda *a, **k: nullcontext())
    return called


def test_what_can_be_captured_is_replayed(cuda: list[str]) -> None:
    work: list[int] = []
    done = capture(lambda: work.append(1))
    done.run()
    assert (work, cuda, done.graph_fallback_reason) == ([1], ["replay"], "")


def test_what_cannot_runs_as_it_is_and_that_is_said_once(cuda: list[str], caplog: pytest.LogCaptureFixture) -> None:
    work: list[int] = []

    def once_refused() -> None:
        work.append(1)
        if len(work) == 1:
            raise RuntimeError(SAID)

    with caplog.at_level(logging.WARNING):
        done = capture(once_refused)
    done.run()
    assert work == [1, 1]
    assert done.graph_fallback_reason == "CUDA error: operation not permitted when stream is capturing"
    assert cuda == ["stream back", "synchronize"]
    (line,) = caplog.messages
    assert "without a CUDA graph" in line
    assert line.endswith("when stream is capturing")


def test_a_gpu_that_is_lost_with_the_attempt_is_an_error(cuda: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*args: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    with pytest.raises(CoolsdError, match=r"^the GPU: .*illegal memory access.*run the command again"):
        capture(lost)


def test_an_error_is_its_first_line_that_says_something() -> None:
    assert first_line(RuntimeError("\n  one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"


def test_a_image_without_a_graph_is_the_same_image(cuda: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The round at which capturing is tried runs too, and only one attempt is made."""
    case, attempts = CASES["COOL-SD"], [0]
    engine = engine_of(case)
    wanted = draw(engine, case, (1, 2, 3))
    make = program.Program.__init__

    def on_a_gpu(self: Any, *args: Any) -> None:
        make(self, *args)
        self._stream = object()

    def refuse(graph: Any, function: Any) -> None:
        attempts[0] += 1
        raise RuntimeError(SAID)

    monkeypatch.setattr(program.Program, "__init__", on_a_gpu)
    monkeypatch.setattr(program, "on_stream", lambda stream: nullcontext())
    monkeypatch.setattr(capture_module, "_record", refuse)
    device = DeviceEngine(engine)
    assert device.graph_fallback_reason == ""
    for _ in range(2):
        np.testing.assert_array_equal(draw(device, case, (1, 2, 3)).codes, wanted.codes)
    assert attempts == [1]
    assert "stream is capturing" in device.graph_fallback_reason


class Full:
    """Steps that find no memory so many times."""

    def __init__(self, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.forgot = times, 0
        real, forget = Programs.get, Programs.forget

        def get(programs: Programs, *args: Any) -> Any:
            if self.left:
                self.left -= 1
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
            return real(programs, *args)

        def count(programs: Programs) -> None:
            self.forgot += 1
            forget(programs)

        monkeypatch.setattr(Programs, "get", get)
        monkeypatch.setattr(Programs, "forget", count)


def test_memory_of_earlier_batches_is_given_back_first(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["COOL-SD"]
    engine, full = engine_of(case), Full(1, monkeypatch)
    np.testing.assert_array_equal(
        draw(DeviceEngine(engine), case, (1, 2, 3)).codes, draw(engine, case, (1, 2, 3)).codes
    )
    assert full.forgot == 1


def test_a_batch_that_does_not_fit_is_one_line_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["COOL-SD"]
    Full(2, monkeypatch)
    one = draw(engine_of(case), case, (1,), PROMPTS[:1])
    assert one.codes.shape[0] == 1
    monkeypatch.setattr("coolsd_rt.device.engine.free_bytes", lambda: 1_000_000)
    with pytest.raises(CoolsdError) as caught:
        draw(DeviceEngine(engine_of(case)), case, (1, 2, 3))
    said = str(caught.value)
    assert "\n" not in said
    assert "GPU memory for a batch of 3 images: expected about " in said
    assert "found 1.0 MB free; draw at most 2 at once: engine.max_batch 2" in said


def test_a_image_that_does_not_fit_alone_is_said_so() -> None:
    dims = ModelDims(16384, 1280, 36, 20, 64, 120, 1024, 1, 20, 64)
    batch = BatchShape(dims, 8, 16, 1149, 5, 2)
    assert batch.of(1).rows == 2
    # Caches alone: 16 rows of 37 layers' K and V.
    assert batch.bytes > 16 * 37 * 2 * 1149 * 1280 * 2 > 3.4e9
    assert 3.4e9 < batch.bytes < 6e9
    assert "draw at most 3 at once" in str(refused(batch, batch.of(3).bytes))
    assert re_single(str(refused(batch, 1000)))
    assert memory.free_bytes() >= 0


def re_single(said: str) -> bool:
    return "a single image needs about" in said and "found 1.0 kB free" in said


def test_images_are_decoded_in_halves_where_memory_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, sizes = engine_of(CASES["COOL-SD"]), []
    codes = np.arange(5 * 16).reshape(5, 16) % 32
    wanted, decode_images = engine.decode_images(codes), engine.decode_images

    def narrow(codes: Any) -> Any:
        sizes.append(len(codes))
        if len(codes) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return decode_images(codes)

    monkeypatch.setattr(engine, "decode_images", narrow)
    np.testing.assert_array_equal(DeviceEngine(engine).decode_images(codes), wanted)
    assert sizes == [5, 2, 3, 1, 2]


class Event:
    """Of a GPU that is far behind the host, or always done."""

    def __init__(self, ready: bool) -> None:
        self.ready, self.waited = ready, 0

    def query(self) -> bool:
        return self.ready

    def synchronize(self) -> None:
        self.waited += not self.ready


@pytest.mark.parametrize("name", ["plain", "COOL-SD", "lossless", "synthetic", "paced"])
@pytest.mark.parametrize("ready", [False, True], ids=["far behind", "at once"])
def test_no_round_is_launched_that_is_not_needed(name: str, ready: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host launches ahead as far as there must be rounds, and looks; it waits for fewer looks than rounds."""
    case, events, watches = CASES[name], list[Event](), list[Any]()
    engine = engine_of(case)
    wanted = draw(engine, case, (1, 2, 3))
    make = program._Watch.__init__

    def on_a_gpu(self: Any, *args: Any) -> None:
        make(self, *args)
        self._cuda, self._every = True, program.POLL_EVERY_ROUNDS
        watches.append(self)

    def look(counters: Any) -> tuple[Any, Event]:
        events.append(Event(ready))
        return counters.clone(), events[-1]

    monkeypatch.setattr(program._Watch, "__init__", on_a_gpu)
    monkeypatch.setattr(program, "_on_its_way", look)
    found = draw(DeviceEngine(engine), case, (1, 2, 3))
    np.testing.assert_array_equal(found.codes, wanted.codes)
    (watch,) = watches
    assert watch.rounds == int(found.statistics.rounds.max())
    assert len(events) <= watch.rounds
    assert sum(event.waited for event in events) <= (0 if ready else len(events))
