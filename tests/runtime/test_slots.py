"""Images in slots: each has the tokens that it has alone, whenever it comes and whoever is beside it.

The fake's rows carry their caches and the names of their features with them, so that a row in the wrong place draws
other tokens or NaN.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coolsd_rt.law import Law
from coolsd_rt.runtime import Generation, LoopHooks, Sampling, decode, generate
from coolsd_rt.runtime.self_decoding import DecodeRequest
from coolsd_rt.runtime.slot_group import ImageRequest
from coolsd_rt.runtime.slots import SlotHooks, Slots
from tests.runtime.fakes import FakeRowSession, FakeSession, dims
from tests.runtime.served import (
    FORCED,
    LAW,
    LAWS,
    LENGTH,
    SAMPLING,
    SAMPLINGS,
    TABLES,
    TOKENS,
    VOCAB,
    Served,
    alone,
    arrivals,
    requests,
    session_of,
)

of_one_group = st.builds(
    ImageRequest,
    item=st.none(),
    law=st.sampled_from(LAWS[:3]),
    sampling=st.sampled_from([one for one in SAMPLINGS if one.guided]),
    seed=st.integers(0, 50),
    forced=st.sampled_from([None, None, FORCED]),
)
"""Images that share steps, and of which the graph `propose` drafts some, by one setting or another, and others not."""


@pytest.mark.parametrize("propose", [0, LENGTH])
@given(
    came=st.one_of(arrivals(requests), arrivals(of_one_group)),
    slots=st.integers(1, 4),
)
@settings(max_examples=120, deadline=None)
def test_whenever_an_image_comes_it_has_the_tokens_that_it_has_alone(
    propose: int, came: list[tuple[int, list[ImageRequest]]], slots: int
) -> None:
    """Each image has a law and sampling of its own."""
    served, asked = Served(slots, propose), list[ImageRequest]()
    for wait, images in came:
        for _ in range(wait):
            served.step()
        for image in images:
            served.loop.enter(len(asked), image)
            asked.append(image)
    served.run()
    assert {ticket: image.codes.tolist() for ticket, image in served.drawn.items()} == {
        ticket: alone(request, propose) for ticket, request in enumerate(asked)
    }


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_images_that_step_together_are_each_drafted_in_their_own_way(seed: int) -> None:
    """The graph `propose` drafts the first by one setting and the second by another; it cannot draft the others."""
    asked = [
        ImageRequest(None, LAW, SAMPLING, seed),
        ImageRequest(None, Law((1.0,) * LENGTH), Sampling(cfg_scale=1.5, temperature=0.5, top_k=2), seed + 1),
        ImageRequest(None, Law((1.0,) * (LENGTH - 1)), Sampling(cfg_scale=2.0), seed + 2),
        ImageRequest(None, LAW, Sampling(cfg_scale=2.0, top_p=0.6), seed + 3),
    ]
    served = Served(4, LENGTH)
    for ticket, request in enumerate(asked):
        served.loop.enter(ticket, request)
    served.run()
    assert len(served.seen[0]) == 1  # they came one by one ...
    assert max(len(images) for images in served.seen) == 4  # ... and then shared steps
    for ticket, request in enumerate(asked):
        assert served.drawn[ticket].codes.tolist() == alone(request, LENGTH)


@given(
    images=st.lists(st.tuples(requests, st.booleans()), min_size=2, max_size=6),
    when=st.integers(0, 6),
    slots=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_who_goes_away_is_not_drawn_and_changes_nobody(
    images: list[tuple[ImageRequest, bool]], when: int, slots: int
) -> None:
    """Images leave before or after they had a slot. In the next round nothing of them runs."""
    served = Served(slots)
    for ticket, (request, _) in enumerate(images):
        served.loop.enter(ticket, request)
    for _ in range(when):
        served.step()
    goes = {ticket for ticket, (_, leaves) in enumerate(images) if leaves} - set(served.drawn)
    for ticket in goes:
        served.loop.leave(ticket)
    served.loop.leave(1000)  # nobody
    served.seen.clear()
    served.run()
    assert not goes & set(served.drawn)
    assert not goes & {image.ticket for images in served.seen for image in images}
    for ticket, (request, _) in enumerate(images):
        if ticket not in goes:
            assert served.drawn[ticket].codes.tolist() == alone(request)


def test_slots_are_full_while_somebody_waits_and_who_waits_longest_is_first() -> None:
    served = Served(3)
    for ticket in range(12):
        served.loop.enter(ticket, ImageRequest(None, LAW, SAMPLING, ticket))
    began: list[int] = []
    while served.loop.busy:
        waited = served.loop.waiting
        served.step()
        if waited and served.loop.waiting:
            assert len(served.seen[-1]) == 3
        began += [image.ticket for image in served.seen[-1] if image.ticket not in began]
    assert began == list(range(12))


def test_groups_take_turns() -> None:
    """Two laws that cannot share a step: neither waits for the other's end."""
    served = Served(2)
    served.loop.enter(0, ImageRequest(None, LAW, SAMPLING, 1))
    served.loop.enter(1, ImageRequest(None, Law(()), SAMPLING, 1))
    turns: list[tuple[int, ...]] = []
    while not served.drawn:
        served.step()
        turns.append(tuple(image.ticket for image in served.seen[-1]))
    assert turns[:4] == [(0,), (1,), (0,), (1,)]


def test_the_counts_are_those_of_the_images_alone() -> None:
    served = Served(2)
    asked = [ImageRequest(None, law, SAMPLING, seed) for seed, law in enumerate([LAW, LAWS[1], LAW, LAWS[2], LAW])]
    for ticket, request in enumerate(asked):
        served.loop.enter(ticket, request)
    served.run()
    each = [generate(session_of([one]), one.law, one.sampling, [one.seed]).statistics for one in asked]
    for ticket, one in enumerate(each):
        image = served.drawn[ticket]
        assert len(image.accepted) == int(one.rounds[0]) == len(image.num_drafts)
        assert sum(image.accepted) == int(one.accepts.sum())
        assert sum(image.num_drafts) == one.draft_tokens
    for name in ("draft_tokens", "degenerate"):
        assert sum(getattr(s, name) for s in served.statistics) == sum(getattr(s, name) for s in each)
    for name in ("attempts", "accepts"):
        found, wanted = ([getattr(s, name) for s in side] for side in (served.statistics, each))
        assert _added(found) == _added(wanted)


def _added(counts: Sequence[Any]) -> list[int]:
    """Return the sums of counts by position; some have fewer positions."""
    return [sum(int(c[i]) for c in counts if i < len(c)) for i in range(max(map(len, counts)))]


def test_rows_that_cannot_change_are_drawn_in_batches() -> None:
    served = Served(2, kind=FakeSession)
    asked = [ImageRequest(None, LAW, SAMPLING, seed) for seed in range(5)]
    for ticket, request in enumerate(asked):
        served.loop.enter(ticket, request)
    served.run()
    groups = {tuple(image.ticket for image in images) for images in served.seen}
    assert all(set(group) <= {0, 1} or set(group) <= {2, 3} or set(group) == {4} for group in groups)
    assert {t: d.codes.tolist() for t, d in served.drawn.items()} == {t: alone(r) for t, r in enumerate(asked)}


class OwnLoop(FakeSession):
    """Decodes by itself, as a device does."""

    def refusal_reason(self, request: DecodeRequest) -> str:
        return ""

    def decode(self, request: DecodeRequest) -> Generation:
        models = FakeSession(TABLES, dims(VOCAB, TOKENS), self.images, guided=self.guided)
        hooks = LoopHooks(on_progress=request.on_progress)
        found = decode(models, request.law, request.sampling, request.uniforms, loop="host", hooks=hooks)
        return replace(found, loop="device")


def test_a_device_draws_one_batch_a_step_and_who_leaves_before_it_is_not_in_it() -> None:
    served = Served(2, kind=OwnLoop)
    asked = [ImageRequest(None, LAW, SAMPLING, seed) for seed in range(5)]
    for ticket, request in enumerate(asked):
        served.loop.enter(ticket, request)
    served.loop._hooks = SlotHooks(None, served.loop._hooks.on_finished)  # a device says less of its rounds
    served.step()
    assert sorted(served.drawn) == [0, 1]
    served.loop.leave(2)
    served.step()
    assert sorted(served.drawn) == [0, 1, 3, 4]
    assert not served.loop.busy
    assert {image.loop for image in served.drawn.values()} == {"device"}
    assert [len(one.rounds) for one in served.statistics] == [2, 2]
    for ticket, image in served.drawn.items():
        assert image.codes.tolist() == alone(asked[ticket])


class Watched(FakeRowSession):
    """Counts the sessions that are alive and the rows that the largest one ever had."""

    alive: ClassVar[weakref.WeakSet[FakeSession]] = weakref.WeakSet()
    largest: ClassVar[int] = 0

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        Watched.alive.add(self)

    def target(self, ids: Any, pos: Any) -> Any:
        Watched.largest = max(Watched.largest, len(ids))
        return super().target(ids, pos)


def test_nothing_is_kept_of_hundreds_of_images() -> None:
    """Sessions, rows and counts are as few after 300 arrivals as after 30, with groups that come and go."""
    served = Served(4, kind=Watched)
    served.loop = Slots(4, served._open)
    generator = np.random.default_rng(0)
    kept: list[int] = []
    for ticket in range(300):
        law, sampling = LAWS[generator.integers(4)], SAMPLINGS[generator.integers(2)]
        served.loop.enter(ticket, ImageRequest(None, law, sampling, ticket))
        if generator.random() < 0.1:
            served.loop.leave(int(generator.integers(ticket + 1)))
        while served.loop.waiting > 3:
            served.loop.step()
        if ticket % 30 == 29:
            gc.collect()
            kept.append(len(Watched.alive))
    while served.loop.busy:
        served.loop.step()
    gc.collect()
    assert max(kept) <= 3  # one for each group: plain, and drafts of two resamplers
    assert len(Watched.alive) == 0
    assert Watched.largest <= 2 * 4
