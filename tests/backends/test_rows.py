"""Rows that leave a session and enter another, on real engines: with their prefixes and caches, in the order asked."""

from __future__ import annotations

import numpy as np
import pytest

from coolsd_rt.backends import LoadOptions, load
from coolsd_rt.backends.onnxruntime.caches import BUCKET
from coolsd_rt.backends.onnxruntime.engine import OrtEngine
from coolsd_rt.backends.torch.eager import TorchEngine
from coolsd_rt.store import EngineFolder
from tests.backends.side_by_side import CAPACITY, VOCAB, Both, W, words


@pytest.fixture(scope="module")
def engine(tiny_engine: EngineFolder) -> OrtEngine:
    loaded = load(tiny_engine.verified(), LoadOptions(threads=1, spinning=False))
    assert isinstance(loaded, OrtEngine)
    return loaded


@pytest.fixture(scope="module")
def int8_engine(tiny_engine_int8: EngineFolder) -> OrtEngine:
    loaded = load(tiny_engine_int8.verified(), LoadOptions(threads=1, spinning=False))
    assert isinstance(loaded, OrtEngine)
    return loaded


def stepped(both: Both, width: int) -> None:
    """A prefix, some tokens and a draft step on both sides, so that every cache holds something."""
    both.target(W, np.zeros(both.rows, np.int64))
    features = both.target(width, np.full(both.rows, W))
    both.draft(features, np.full(both.rows, W))


def test_rows_leave_and_join_with_their_caches(engine: OrtEngine, tiny_reference: TorchEngine) -> None:
    """Both sides agree afterwards, and with sessions whose rows were there from the start; the caches may be of
    different capacities."""
    few, many = Both(engine, tiny_reference, 1), Both(engine, tiny_reference, 3)
    stepped(few, 2)
    stepped(many, 2)
    kept = np.array([2, 0, 5, 3])  # the third image and the first: both rows of each
    many.tested.take(kept)
    many.wanted.take(kept)
    many.rows = 4
    at = np.array([W + 2, W + 1, W + 2, W + 1])
    many.draft(many.target(3, at), at)
    far = np.full(2, BUCKET + 3)  # its caches grow: a later step than the other's
    few.draft(few.target(1, far), far)
    order = np.array([0, 1, 4, 2, 3, 5])
    many.tested.take(order, few.tested)
    many.wanted.take(order, few.wanted)
    many.rows = 6
    at = np.concatenate([at[:2] + 3, far[:1] + 1, at[2:] + 3, far[1:] + 1])
    many.draft(many.target(2, at), at)


@pytest.mark.parametrize("further", [1, BUCKET], ids=["as long", "the newcomer's caches are longer"])
def test_a_newcomer_takes_the_rows_of_who_has_left(
    engine: OrtEngine, tiny_reference: TorchEngine, further: int
) -> None:
    """The caches of the others stay where they are; nothing of the one before is read in the rows that are taken."""
    few, many = Both(engine, tiny_reference, 1), Both(engine, tiny_reference, 3)
    stepped(few, 2)
    stepped(many, 5)
    places = {name: memory.array for name, memory in many.tested._target_caches.memory.items()}
    if further > 1:
        few.target(1, np.full(2, further))
    order = np.array([0, 6, 2, 3, 7, 5])  # the newcomer's rows in the place of the second image's
    many.tested.take(order, few.tested)
    many.wanted.take(order, few.wanted)
    if further == 1:
        kept = many.tested._target_caches.memory
        assert all(kept[name].array is array for name, array in places.items())
    at = np.array([W + 3, W + 1, W + 2, W + 3, W + 1, W + 2])
    many.draft(many.target(2, at), at)
    many.draft(many.target(3, at + 1), at + 1)


def test_rows_of_int8_have_the_bits_that_they_have_alone(int8_engine: OrtEngine) -> None:
    """The engine is batch invariant, so mates that left change nothing; odd numbers of rows have a spare one."""
    engine = int8_engine
    prefix, ids = engine.encode_condition(words(3)), np.random.default_rng(2).integers(0, VOCAB, (6, W + 8))
    first, kept = np.arange(5), np.array([1, 4, 3])
    together, joining, alone = (engine.open(prefix[rows], CAPACITY) for rows in (first, kept[2:], kept))
    for session, rows in ((together, first), (joining, kept[2:]), (alone, kept)):
        session.target(ids[rows, :W], np.zeros(len(rows), np.int64))
    together.take(kept[:2])
    together.take(np.array([0, 1, 2]), joining)
    a, b = (session.target(ids[kept, W:], np.full(3, W)) for session in (together, alone))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_rows_of_another_kind_of_session_are_refused(engine: OrtEngine, tiny_reference: TorchEngine) -> None:
    both = Both(engine, tiny_reference, 1)
    with pytest.raises(TypeError, match="found TorchSession"):
        both.tested.take(np.arange(4), both.wanted)
    with pytest.raises(TypeError, match="found OrtSession"):
        both.wanted.take(np.arange(4), both.tested)
