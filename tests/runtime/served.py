"""Slots as a server runs them, over tables: what came of each image, and what it is alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from coolsd_rt.law import Law, make_omegas
from coolsd_rt.runtime import Sampling, generate
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.slot_group import DrawnImage, ImageRequest, SlotProgress
from coolsd_rt.runtime.slots import SlotHooks, Slots
from coolsd_rt.runtime.statistics import Statistics
from tests.runtime.fakes import FakeRowSession, FakeSession, Tables, dims

VOCAB, TOKENS, LENGTH = 3, 8, 3
TABLES = Tables.random(VOCAB, TOKENS, seed=1).as_float32()
SCALES = (3.0, 3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.5)
LAW = Law(make_omegas("exponential", LENGTH, delta=1.3))
SAMPLING = Sampling(cfg_scale=SCALES)
FORCED = (-1, -1, 1, -1, -1, 2, -1, -1)

LAWS = [
    LAW,
    Law((1.0,) * 2),
    Law((2.0, 0.5, 1.0, 0.0)),
    Law(()),
    Law(make_omegas("uniform", LENGTH, delta=1.2), "residual"),
    Law((1.0,) * 2, "target", rates=(0.9, 0.2)),
]
SAMPLINGS = [
    SAMPLING,
    Sampling(cfg_scale=1.5, temperature=0.7, top_k=2),
    Sampling(cfg_scale=2.0, top_p=0.8),
    Sampling(temperature=1.3),
    Sampling(cfg_scale=SCALES, confidence=0.6),
    Sampling(cfg_scale=SCALES, draft_confidence=0.55),
]
DRAFTERS = ["eagle", "jacobi", "jacobi_coupled", "jacobi_gumbel"]


def session_of(requests: Sequence[ImageRequest], kind: type[FakeSession] = FakeRowSession, **more: Any) -> FakeSession:
    sampling = requests[0].sampling
    # Where drafts are dropped, what was guessed stays in the draft's cache.
    paced = max(sampling.confidence, sampling.draft_confidence) > 0 or requests[0].may_drop_drafts
    return kind(TABLES, dims(VOCAB, TOKENS), len(requests), guided=sampling.guided, paced=paced, **more)


def alone(request: ImageRequest, propose: int = 0) -> list[int]:
    models = session_of([request], FakeSession, propose_length=propose)
    drawn = generate(
        models, request.law, request.sampling, [request.seed], request.forced, drafter=request.drafter, loop="host"
    )
    codes: list[int] = drawn.codes[0].tolist()
    return codes


@dataclass
class Served:
    """Slots as a server runs them."""

    slots: int
    propose: int = 0
    kind: type[FakeSession] = FakeRowSession
    drawn: dict[int, DrawnImage] = field(default_factory=dict)
    seen: list[list[SlotProgress]] = field(default_factory=list)
    statistics: list[Statistics] = field(default_factory=list)
    most: int = 0

    def __post_init__(self) -> None:
        hooks = SlotHooks(self._progress, lambda statistics, loop: self.statistics.append(statistics))
        self.loop = Slots(self.slots, self._open, "auto", hooks)

    def _open(self, asked: Sequence[ImageRequest]) -> Session:
        return session_of(asked, self.kind, propose_length=self.propose)

    def _progress(self, images: Sequence[SlotProgress]) -> None:
        self.seen.append(list(images))
        for image in images:
            codes = image.codes[: image.decided]
            assert codes.min(initial=0) >= 0
            assert image.decided == 1 + len(image.accepted) + sum(image.accepted)

    def step(self) -> None:
        for image in self.loop.step():
            assert image.ticket not in self.drawn
            self.drawn[image.ticket] = image
        self.most = max(self.most, self.loop.running)
        assert self.loop.running <= self.slots

    def run(self) -> None:
        while self.loop.busy:
            self.step()


requests = st.builds(
    ImageRequest,
    item=st.none(),
    law=st.sampled_from(LAWS),
    sampling=st.sampled_from(SAMPLINGS),
    seed=st.integers(0, 50),
    drafter=st.sampled_from(DRAFTERS),
    forced=st.sampled_from([None, FORCED]),
)


def arrivals(images: st.SearchStrategy[ImageRequest]) -> st.SearchStrategy[list[tuple[int, list[ImageRequest]]]]:
    """Rounds to wait, and the images that come then."""
    return st.lists(st.tuples(st.integers(0, 4), st.lists(images, min_size=1, max_size=3)), min_size=1, max_size=5)
