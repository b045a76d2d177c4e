"""Sessions that store no padding which all rows share: against the eager reference, which stores every position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coolsd_rt.backends import LoadOptions, load
from coolsd_rt.backends.onnxruntime.caches import BUCKET
from coolsd_rt.backends.onnxruntime.engine import OrtEngine
from coolsd_rt.backends.onnxruntime.session import OrtSession
from coolsd_rt.backends.torch.eager import TorchEngine, TorchSession
from coolsd_rt.backends.torch.eager import load as load_eager
from coolsd_rt.contract import target_contract
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder
from tests.workflows.family_pipelines import TEXT_W

W = TEXT_W
VOCAB, TOLERANCE = 32, 1e-4


@pytest.fixture(scope="module")
def engine(text_engine: EngineFolder) -> OrtEngine:
    loaded = load(text_engine.verified(), LoadOptions(threads=1, spinning=False))
    assert isinstance(loaded, OrtEngine)
    return loaded


@pytest.fixture(scope="module")
def reference(text_spec: Path) -> TorchEngine:
    files = load_spec(text_spec).files
    return load_eager(files["target.weights"], files["draft.weights"], None)


class Rows:
    """Rows with prompts of some lengths on both sides; each knows its next position."""

    def __init__(self, engine: OrtEngine, reference: TorchEngine, lengths: list[int], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        start = W - np.array(lengths)
        prefix = engine.encode_condition(self.rng.integers(0, VOCAB, (len(lengths), W)))
        self.tested: OrtSession = engine.open(prefix, W + 40, start)
        self.wanted: TorchSession = reference.open(torch.from_numpy(prefix), W + 40, torch.from_numpy(start))
        self.at: NDArray[np.int64] = np.full(len(lengths), start.min())

    def step(self, size: int, back: int = 0) -> None:
        """A step of the target and one of the head on its features, equal on both sides; `back` positions are undone.

        Rows that began with padding of their own are compared from their first token on.
        """
        ids, pos = self.rng.integers(0, VOCAB, (len(self.at), size)), self.at
        found = self.tested.target(ids, pos)
        wanted = self.wanted.target(torch.from_numpy(ids), torch.from_numpy(pos))
        self.close(found, wanted)
        given = torch.from_numpy(ids), torch.from_numpy(found[1]), torch.from_numpy(pos)
        self.close(self.tested.draft(ids, found[1], pos), self.wanted.draft(*given))
        self.at = self.at + size - back

    def close(self, found: tuple[NDArray[np.float32], ...], wanted: tuple[torch.Tensor, ...]) -> None:
        """Compare the last position, which has no padding in any row."""
        for a, b in zip(found, wanted, strict=True):
            assert np.abs(a[:, -1] - b.numpy()[:, -1]).max() < TOLERANCE

    def take(self, rows: list[int], other: Rows | None = None) -> None:
        kept = np.array(rows)
        self.tested.take(kept, None if other is None else other.tested)
        self.wanted.take(kept, None if other is None else other.wanted)
        self.at = np.concatenate([self.at, *([] if other is None else [other.at])])[kept]

    @property
    def capacity(self) -> int:
        return self.tested._target_caches.capacity


def test_short_prompts_have_short_caches(engine: OrtEngine, reference: TorchEngine) -> None:
    """The prefix, single steps, six positions and a rollback; two buckets of padding are not stored."""
    rows = Rows(engine, reference, [9, 20, 3], 0)
    rows.step(20)
    for size, back in ((1, 0), (6, 3), (1, 0), (6, 0)):
        rows.step(size, back)
    assert rows.capacity == BUCKET < W
    assert target_contract(engine.dims).inputs[2].shape == ("R", "P", engine.dims.dim)


@pytest.mark.parametrize(("mine", "newcomer"), [(12, 100), (100, 12), (12, 150), (12, 20)])
def test_a_newcomer_brings_a_prompt_of_another_length(
    engine: OrtEngine, reference: TorchEngine, mine: int, newcomer: int
) -> None:
    """Beside the others, in the place of one that left, and after the row with the longest prompt has gone."""
    many, other = Rows(engine, reference, [mine, 5, 7], 1), Rows(engine, reference, [newcomer, 4], 2)
    for rows in (many, other):
        rows.step(int(W - rows.at[0]))
        rows.step(4, 1)
    many.take([0, 1, 2, 3, 4], other)
    many.step(3, 1)
    few = Rows(engine, reference, [newcomer], 3)
    few.step(newcomer)
    few.step(2)
    many.take([5, 1, 2, 3, 4], few)  # in the first row's place
    many.step(2)
    many.take([2, 1, 4])
    many.step(5, 4)
    many.step(1)


@pytest.mark.parametrize("place", ["beside", "in place"])
def test_rows_join_a_session_that_once_had_a_longer_prompt(
    engine: OrtEngine, reference: TorchEngine, place: str
) -> None:
    """The row with the long prompt has left, and what it needed is still stored: more than those that join store."""
    once, short = Rows(engine, reference, [150, 6, 11], 6), Rows(engine, reference, [9, 4, 5], 7)
    for rows in (once, short):
        rows.step(int(W - rows.at[0]))
        rows.step(3, 1)
    once.take([1, 2])
    short.take([0, 1, 2, 3, 4] if place == "beside" else [0, 4, 2], once)
    short.step(4, 2)
    short.step(1)


def test_rows_have_the_same_bits_whatever_the_others_prompts(engine: OrtEngine, reference: TorchEngine) -> None:
    """A row's logits do not depend on how much of the shared padding is stored."""
    alone = Rows(engine, reference, [9, 9], 4)
    beside = Rows(engine, reference, [9, 9, 130], 4)
    prefix = alone.tested._prefix
    beside.tested._prefix[:2] = prefix
    beside.tested._bind()
    ids = np.random.default_rng(5).integers(0, VOCAB, (3, 12))
    first = alone.tested.target(ids[:2, :9], np.full(2, W - 9))[0]
    blank = np.zeros((3, 121), np.int64)
    beside.tested.target(blank, np.full(3, W - 130))
    later = beside.tested.target(ids[:, :9], np.full(3, W - 9))[0]
    assert (first == later[:2]).all()
