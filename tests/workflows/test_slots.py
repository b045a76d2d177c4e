"""Jobs in slots on a real engine: each image has the tokens that it has alone, whoever is beside it."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coolsd_rt.backends.onnxruntime.session import OrtSession
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.call_options import Call
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.slots import JobsDrawing, SlotLoop

PROMPTS = ["red apple", "blue star", "green leaf"]
VALUES: list[dict[str, Any]] = [
    {},
    {"guidance_scale": 3.0, "temperature": 0.8},
    {"schedule": {"delta": 1.4}, "top_k": 7},
    {"draft_length": 1},
    {"draft_length": 2, "top_p": 0.9},
    {"plain": True},
    {"draft": "jacobi", "draft_length": 3},
    {"pacing": {"kind": "manual", "confidence": 0.2}},
]


@pytest.fixture(scope="module", params=["fp32", "int8"])
def opened(request: pytest.FixtureRequest, tiny_engine: EngineFolder, tiny_engine_int8: EngineFolder) -> OpenedEngine:
    folder = tiny_engine if request.param == "fp32" else tiny_engine_int8
    opened = OpenedEngine.at(folder.folder, threads=1)
    opened.load()
    return opened


def request_of(opened: OpenedEngine, index: int, prompt: str, values: dict[str, Any]) -> tuple[Job, Settings]:
    call = Call.of(prompt, {"seed": index, "pacing": None if values.get("plain") else "manual", **values})
    job = drawing.plan([prompt], 1, index, opened.conditioner)[0]
    return job, Prepared.of(opened, call, call.names).settings


images = st.tuples(st.sampled_from(PROMPTS), st.sampled_from(VALUES))


@given(arrivals=st.lists(st.tuples(st.integers(0, 6), images), min_size=2, max_size=5), slots=st.integers(2, 4))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whenever_an_image_comes_it_has_the_tokens_that_it_has_alone(
    opened: OpenedEngine, arrivals: Sequence[tuple[int, tuple[str, dict[str, Any]]]], slots: int
) -> None:
    loop, drawn, asked = SlotLoop(opened, slots), dict[int, Any](), list[tuple[Job, Settings]]()
    for wait, (prompt, values) in arrivals:
        for _ in range(wait):
            drawn.update({image.ticket: image.codes for image in loop.step()})
        asked.append(request_of(opened, len(asked), prompt, values))
        loop.enter(len(asked) - 1, *asked[-1])
    while loop.busy:
        drawn.update({image.ticket: image.codes for image in loop.step()})
    for ticket, (job, own) in enumerate(asked):
        alone = drawing.draw(opened.engine, [job], opened.conditioner, own).codes[0]
        np.testing.assert_array_equal(drawn[ticket], alone)


def test_a_long_list_keeps_the_slots_full(tiny_engine: EngineFolder) -> None:
    """The next image enters when one is finished: at no time do fewer run than could."""
    opened = OpenedEngine.at(tiny_engine.folder, threads=1)
    jobs = drawing.plan(PROMPTS, 4, 0, opened.conditioner)
    call = Call.of(PROMPTS, {"pacing": "manual"})
    heard: list[int] = []
    images = JobsDrawing(opened, jobs, Prepared.of(opened, call).settings, lambda now, _: heard.append(len(now)))
    order = [image.job.index for image in images.run()]
    most = opened.spec.engine.max_batch
    assert sorted(order) == list(range(len(jobs)))
    tail = heard[: -len([n for n in heard if n < most])]
    assert set(tail) == {most}  # fewer only at the end
    assert images.statistics.rounds.sum() < len(jobs) * opened.description.dims.tokens


def test_sessions_end_with_their_images(tiny_engine: EngineFolder) -> None:
    opened = OpenedEngine.at(tiny_engine.folder, threads=1)
    loop = SlotLoop(opened, 3)
    most = 0
    for index in range(60):
        values = VALUES[index % 3]
        loop.enter(index, *request_of(opened, index, PROMPTS[index % 3], values))
        if index % 7 == 0:
            loop.leave(index - 1)
        while loop.waiting > 2:
            loop.step()
        if index % 10 == 9:
            gc.collect()
            most = max(most, sum(type(thing) is OrtSession for thing in gc.get_objects()))
    while loop.busy:
        loop.step()
    gc.collect()
    assert most <= 1  # all of these share steps
    assert not any(type(thing) is OrtSession for thing in gc.get_objects())
