"""The round on slots, enumerated: every path through all draws of an image, beside images of other laws.

Each leaf of `tests.runtime.tree` is an image; leaves of three laws with omegas and draft lengths of their own come one
after another, so that images of all three share steps, enter rows that others have left, and are at different tokens.
Each has to be the leaf's image in the leaf's number of rounds, at both ends of the leaf's box of uniforms: then
the law of an image in a slot is the leaves' law, whoever is beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest

from coolsd_rt.law import Law, make_omegas
from coolsd_rt.runtime import Sampling
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.slot_group import ImageRequest
from coolsd_rt.runtime.slots import SlotHooks, Slots
from coolsd_rt.runtime.statistics import Statistics
from tests.runtime.fakes import FakeRowSession, Tables, dims
from tests.runtime.tree import Leaf, Method, leaves, output_law, probes

VOCAB, TOKENS = 3, 4
LAWS = [
    Law(make_omegas("exponential", 3, delta=1.1)),
    Law(make_omegas("uniform", 2, delta=1.5)),
    Law((0.3, 0.8, 1.0)),
]
TABLES = Tables.random(VOCAB, TOKENS, seed=VOCAB, zeros=False)
SLOTS = 5


def session(requests: Sequence[ImageRequest]) -> Session:
    return FakeRowSession(TABLES, dims(VOCAB, TOKENS), len(requests))


@pytest.fixture(scope="module")
def found() -> list[list[Leaf]]:
    return [leaves(TABLES.p, TABLES.q, Method(law.omegas, law.resampler), TOKENS) for law in LAWS]


@pytest.mark.parametrize("upper", [False, True], ids=["low", "high"])
def test_every_leaf_of_every_law_is_drawn(
    found: list[list[Leaf]], upper: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = [
        (law, leaf) for group in zip_longest(*found) for law, leaf in zip(LAWS, group, strict=True) if leaf is not None
    ]
    tables = [probes([leaf], TOKENS, law.length, upper)[0] for law, leaf in mixed]
    # An image's numbers come from its seed, of which there is none for a leaf: the seed is the leaf.
    monkeypatch.setattr(
        "coolsd_rt.runtime.slots.uniform_table",
        lambda seeds, tokens, length, passes: np.stack([tables[seed] for seed in seeds]),
    )
    counts: list[Statistics] = []
    beside: set[frozenset[int]] = set()

    def note(images: Sequence[Any]) -> None:
        beside.add(frozenset(LAWS.index(mixed[image.ticket][0]) for image in images))

    slots = Slots(SLOTS, session, "host", SlotHooks(note, lambda statistics, _: counts.append(statistics)))
    for ticket, (law, _) in enumerate(mixed):
        slots.enter(ticket, ImageRequest(None, law, Sampling(), ticket))
    drawn = {}
    while slots.busy:
        drawn.update({image.ticket: image for image in slots.step()})
    assert frozenset({0, 1, 2}) in beside  # all laws have shared a step
    for ticket, (_, leaf) in enumerate(mixed):
        assert tuple(drawn[ticket].codes.tolist()) == leaf.codes
        assert len(drawn[ticket].accepted) == leaf.rounds
        assert sum(drawn[ticket].accepted) == leaf.accepted
    assert sum(one.degenerate for one in counts) == sum(leaf.degenerate for _, leaf in mixed)


def test_the_leaves_are_whole_laws(found: list[list[Leaf]]) -> None:
    for one in found:
        assert sum(output_law(one).values()) == pytest.approx(1, abs=1e-9)


def test_a_relaxed_law_is_not_the_targets(found: list[list[Leaf]]) -> None:
    """Else images could take each other's omegas unseen."""
    laws = [output_law(one) for one in found]
    for k, one in enumerate(laws):
        for other in laws[:k]:
            distance = sum(abs(one.get(codes, 0) - other.get(codes, 0)) for codes in {*one, *other}) / 2
            assert distance > 0.01
