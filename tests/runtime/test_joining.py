"""Images leave a running loop and join it between rounds: each has the tokens that it has alone, whenever it came.

The fake's rows carry their caches and the names of their features with them, so that a row in the wrong place draws
other tokens or NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coolsd_rt.law import Law, make_omegas
from coolsd_rt.runtime import LoopHooks, Sampling, generate
from coolsd_rt.runtime.decoding_loop import DecodingLoop
from coolsd_rt.runtime.drafter_names import DrafterName
from coolsd_rt.runtime.randomness import uniform_table
from coolsd_rt.runtime.self_decoding import DecodeRequest
from tests.runtime.fakes import FakeRowSession, FakeSession, Tables, dims
from tests.runtime.progresses import Heard

VOCAB, TOKENS, LENGTH = 3, 8, 3
TABLES = Tables.random(VOCAB, TOKENS, seed=1).as_float32()
LAW = Law(make_omegas("exponential", LENGTH, delta=1.3))
SAMPLING = Sampling(cfg_scale=(3.0, 3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.5))
SEEDS = [11, 12, 13, 14, 15]
WAYS = [
    pytest.param(name, propose, id=f"{name}{', proposed' if propose else ''}")
    for name, propose in [
        ("eagle", 0),
        ("eagle", LENGTH),
        ("jacobi", 0),
        ("jacobi_coupled", 0),
        ("jacobi_gumbel", 0),
        ("ngram", 0),
    ]
]


def session(images: int, kind: type[FakeSession] = FakeRowSession, guided: bool = True, **more: Any) -> FakeSession:
    return kind(TABLES, dims(VOCAB, TOKENS), images, guided=guided, **more)


def alone(seed: int, drafter: DrafterName, propose: int, law: Law = LAW, sampling: Sampling = SAMPLING) -> list[int]:
    models = session(1, FakeSession, guided=sampling.guided, propose_length=propose)
    codes: list[int] = generate(models, law, sampling, [seed], drafter=drafter).codes[0].tolist()
    return codes


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(("drafter", "propose"), WAYS)
def test_finished_images_leave_and_the_others_draw_what_they_would(
    drafter: DrafterName, propose: int, library: str
) -> None:
    models = session(len(SEEDS), propose_length=propose, library=library)
    heard = Heard()
    hooks = LoopHooks(on_progress=heard)
    found = generate(models, LAW, SAMPLING, SEEDS, drafter=drafter, hooks=hooks)
    stayed = generate(session(len(SEEDS), FakeSession), LAW, SAMPLING, SEEDS, drafter=drafter)
    assert models.calls.count("take") >= 1  # images end at different times
    assert models.rows < 2 * len(SEEDS)
    np.testing.assert_array_equal(found.codes, stayed.codes)
    for name in ("rounds", "accepts", "attempts", "accepted_histogram"):
        np.testing.assert_array_equal(getattr(found.statistics, name), getattr(stayed.statistics, name))
    heard.check(found)  # the tokens of images that have left are there at any time


class Served:
    """A loop as a server runs it: who arrives joins between rounds, who is finished leaves."""

    def __init__(self, drafter: DrafterName, propose: int, law: Law, sampling: Sampling) -> None:
        self.drafter, self.propose, self.law, self.sampling = drafter, propose, law, sampling
        self.loop: DecodingLoop | None = None
        self.seeds: list[int] = []  # of the images of the loop
        self.drawn: dict[int, list[int]] = {}

    def arrive(self, seeds: list[int]) -> None:
        table = uniform_table(seeds, TOKENS, self.law.length)
        models = session(len(seeds), guided=self.sampling.guided, propose_length=self.propose)
        loop = DecodingLoop(models, DecodeRequest(self.law, self.sampling, table, None, self.drafter))
        loop.prefill()
        if self.loop is None:
            self.loop, self.seeds = loop, list(seeds)
        else:
            self.loop.take(np.arange(len(self.seeds) + len(seeds)), loop)
            self.seeds += seeds

    def round(self) -> None:
        loop = self.loop
        if loop is None:
            return
        loop.round()
        left = loop.state.remaining
        for m in np.flatnonzero(left == 0).tolist():
            self.drawn[self.seeds[m]] = loop.state.codes[m].tolist()
        self.seeds = [self.seeds[m] for m in np.flatnonzero(left).tolist()]
        if not self.seeds:
            self.loop = None
        elif not left.all():
            loop.take(np.flatnonzero(left))


@pytest.mark.parametrize(("drafter", "propose"), WAYS)
@pytest.mark.parametrize("sampling", [SAMPLING, Sampling(temperature=0.8, top_k=2)], ids=["guided", "plain rows"])
@given(arrivals=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=6), start=st.integers(0))
@settings(max_examples=15, deadline=None)
def test_whenever_an_image_comes_it_has_the_tokens_that_it_has_alone(
    drafter: DrafterName, propose: int, sampling: Sampling, arrivals: list[tuple[int, int]], start: int
) -> None:
    """arrivals: rounds to wait, and how many images come then."""
    served, seed = Served(drafter, propose, LAW, sampling), start % 1000
    first = seed
    for wait, images in arrivals:
        for _ in range(wait):
            served.round()
        served.arrive(list(range(seed, seed + images)))
        seed += images
    while served.loop is not None:
        served.round()
    assert served.drawn == {s: alone(s, drafter, propose, sampling=sampling) for s in range(first, seed)}


def test_a_session_without_rows_to_drop_keeps_its_images() -> None:
    models = session(len(SEEDS), FakeSession)
    generate(models, LAW, SAMPLING, SEEDS)
    assert models.rows == 2 * len(SEEDS)
    table = uniform_table(SEEDS, TOKENS, LENGTH)
    loop = DecodingLoop(session(len(SEEDS), FakeSession), DecodeRequest(LAW, SAMPLING, table))
    with pytest.raises(TypeError, match="whose rows may change"):
        loop.take(np.array([0]))
