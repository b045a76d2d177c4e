"""Caches under random programs of accepting, rejecting and rolling back: afterwards as good as a fresh prefill.

The programs do to a session what the loop does: catch-up of the draft with real features, guesses on its own ones,
a target step over all drafts, a smaller position instead of what was rejected; each image of a batch at a position of
its own. And one thing more than the loop: tokens that were decided long ago are taken back.

Legend as in `coolsd_rt.runtime.round`: M images, R = 2M rows, W prefix, L draft length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coolsd_rt.arrays import Floats32, Ints
from coolsd_rt.backends import LoadOptions, load
from coolsd_rt.runtime import Engine
from coolsd_rt.runtime.interface import proposing
from coolsd_rt.store import EngineFolder

IMAGES, LENGTH, TOLERANCE = 3, 3, 2e-5


@pytest.fixture(scope="module", params=["torch", "onnxruntime"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "torch":
        reference: Engine = request.getfixturevalue("tiny_reference")
        return reference
    built: EngineFolder = request.getfixturevalue("tiny_engine")
    loaded: Engine = load(built.verified(), LoadOptions(threads=1, spinning=False))
    return loaded


@dataclass(frozen=True)
class Round:
    """drafts: 0..L of every image. propose: drafted in one call where the session can. accepted: [M] drafts that are
    accepted, all at most. back: [M] decided tokens that are taken back before."""

    drafts: int
    propose: bool
    accepted: tuple[int, ...]
    back: tuple[int, ...]


def each(values: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[values] * IMAGES)


BACK = st.sampled_from([0, 0, 0, 1, 2, 5])
ROUNDS = st.builds(Round, st.integers(0, LENGTH), st.booleans(), each(st.integers(0, LENGTH)), each(BACK))
PROGRAMS = st.lists(ROUNDS, min_size=1, max_size=8)


class Batch:
    """A session that is stepped, and beside it the truth on the host: tokens, counters, real features."""

    def __init__(self, engine: Engine, seed: int, slip: int = 0, keep_guesses: bool = False) -> None:
        """The plants. slip: error of the target's position after a rejection. keep_guesses: rows that the draft made
        from features of its own stay where their tokens were accepted."""
        self.engine, self.rng, self.slip, self.keep_guesses = engine, np.random.default_rng(seed), slip, keep_guesses
        d = self.dims = engine.dims
        conditional = self.rng.integers(3, 6, (IMAGES, d.prefix))
        self.prefix = engine.encode_condition(np.concatenate([conditional, np.full_like(conditional, 2)]))
        self.room = d.positions + 4 * LENGTH
        self.session = engine.open(self.prefix, self.room)
        self.codes = self.rng.integers(0, d.vocab, (IMAGES, self.room + 1))  # by position; decided below `cached`
        self.features = np.zeros((2 * IMAGES, self.room, d.dim), np.float32)
        self.cached, self.drafted = (np.zeros(IMAGES, np.int64) for _ in range(2))
        self.error = np.zeros(IMAGES, np.int64)
        self.rejections = 0
        _, features = self.target(self.codes[:, : d.prefix])
        self.features[:, : d.prefix] = features
        self.cached += d.prefix

    def put(self, array: Any, dtype: str = "int64") -> Any:
        return self.session.asarray(np.ascontiguousarray(array), dtype)

    def target(self, ids: Ints) -> tuple[Floats32, Floats32]:
        pos = np.tile(self.cached + self.error, 2)
        logits, features = self.session.target(self.put(np.tile(ids, (2, 1))), self.put(pos))
        return np.asarray(logits), np.asarray(features)

    def draft(self, ids: Ints, features: Floats32, pos: Ints) -> tuple[Floats32, Floats32]:
        """ids [M, S], pos [M]; features are per row."""
        out = self.session.draft(
            self.put(np.tile(ids, (2, 1))), self.put(features, "float32"), self.put(np.tile(pos, 2))
        )
        return np.asarray(out[0]), np.asarray(out[1])

    def pending(self) -> tuple[Ints, Floats32, Ints, Ints]:
        """A ragged draft step over `drafted..cached-1`, padded with rubbish: ids, features, pos, own columns [M]."""
        pos, num_pending = self.drafted, self.cached - self.drafted
        columns = pos[:, None] + np.arange(int(num_pending.max()))
        own = columns < self.cached[:, None]
        ids = np.where(own, np.take_along_axis(self.codes, columns + 1, 1), self.ids(columns.shape[1]))
        there = np.tile(np.minimum(columns, self.room - 1), (2, 1))[..., None]
        rubbish = 9 * self.rng.standard_normal((len(there), columns.shape[1], self.dims.dim), np.float32)
        features = np.where(np.tile(own, (2, 1))[..., None], np.take_along_axis(self.features, there, 1), rubbish)
        self.drafted = self.cached.copy()
        return ids, features, pos, num_pending

    def ids(self, size: int) -> Ints:
        return self.rng.integers(0, self.dims.vocab, (IMAGES, size))

    def play(self, step: Round) -> None:
        self.take_back(step)
        drafts = self.propose(step) if step.drafts else self.ids(0)
        rows, at = np.arange(IMAGES), self.cached.copy()
        _, features = self.target(np.concatenate([self.codes[rows, at][:, None], drafts], axis=1))
        accepted = np.minimum(step.accepted, step.drafts)
        for m in range(IMAGES):
            whole = slice(at[m], at[m] + 1 + accepted[m])
            self.codes[m, at[m] + 1 : at[m] + 1 + accepted[m]] = drafts[m, : accepted[m]]
            for row in (m, m + IMAGES):
                self.features[row, whole] = features[row, : 1 + accepted[m]]
        self.cached = at + 1 + accepted
        self.codes[rows, self.cached] = self.ids(1)[:, 0]  # the token after them, pending
        self.error += np.where(accepted < step.drafts, self.slip, 0)
        self.rejections += int((accepted < step.drafts).sum())
        if self.keep_guesses and step.drafts > 1:
            self.drafted = np.maximum(self.drafted, np.minimum(at + step.drafts - 1, self.cached - 1))

    def take_back(self, step: Round) -> None:
        """As asked, and as much as a step over L drafts needs before the image's end."""
        enough = self.dims.positions - LENGTH - 1
        self.cached = np.maximum(np.minimum(self.cached - step.back, enough), self.dims.prefix)
        self.drafted = np.minimum(self.drafted, self.cached - 1)  # its row pairs a feature with the token after it

    def propose(self, step: Round) -> Ints:
        """Drafts [M, L']: of `propose`, or on tokens that fall from the sky, which is all the same to a cache."""
        ids, features, pos, num_pending = self.pending()
        if step.propose and (session := proposing(self.session, LENGTH)) is not None:
            u, scale = self.rng.random((IMAGES, LENGTH), np.float32), np.ones((IMAGES, LENGTH), np.float32)
            tokens, _ = session.propose(
                self.put(np.tile(ids, (2, 1))),
                self.put(features, "float32"),
                self.put(np.tile(pos, 2)),
                self.put(np.tile(num_pending, 2)),
                self.put(u, "float32"),
                self.put(scale, "float32"),
                1.0,
                self.dims.vocab,
            )
            return np.asarray(tokens)[:, : step.drafts]
        drafts = self.ids(step.drafts)
        _, guessed = self.draft(ids, features, pos)
        last = guessed[np.arange(2 * IMAGES), np.tile(num_pending - 1, 2)][:, None]
        for i in range(1, step.drafts):
            _, last = self.draft(drafts[:, i - 1 : i], last, self.cached + i - 1)
        return drafts

    def deviation(self) -> float:
        """The largest difference, of logits or features, between the next steps of target and draft and those of fresh
        sessions, one an image, that prefilled what is decided in one go."""
        self.take_back(Round(0, False, (), (0,) * IMAGES))
        at, rows = self.cached, np.arange(IMAGES)
        pending = self.codes[rows, at][:, None]
        step = np.concatenate([pending, self.ids(LENGTH)], axis=1)
        ids, features, pos, num_pending = self.pending()
        caught_up = self.draft(ids, features, pos)
        guess = caught_up[1][np.arange(2 * IMAGES), np.tile(num_pending - 1, 2)][:, None]
        guessing = self.draft(step[:, 1:2], guess, at)
        judging = self.target(step)
        pairs: list[tuple[Floats32, Floats32]] = []
        for m in range(IMAGES):
            both, n, new = [m, m + IMAGES], int(at[m]), int(num_pending[m])
            alone = Alone(self, m)
            known, *wanted = alone.prefill(n)
            pairs.append((self.features[both, :n], known))
            pairs += [(a[both, :new], b[:, -new:]) for a, b in zip(caught_up, wanted, strict=True)]
            next_guess = alone.draft(step[m, 1:2], wanted[1][:, -1:], n)
            pairs += [(a[both], b) for a, b in zip(guessing, next_guess, strict=True)]
            pairs += [(a[both], b) for a, b in zip(judging, alone.target(step[m], n), strict=True)]
        return max(float(np.abs(a - b).max()) for a, b in pairs)


class Alone:
    """One image of a batch on a fresh session of its own."""

    def __init__(self, batch: Batch, image: int) -> None:
        self.batch, self.codes = batch, batch.codes[image]
        prefix = batch.prefix[[image, image + IMAGES]]
        self.session = batch.engine.open(prefix, batch.room)

    def target(self, ids: Ints, pos: int) -> tuple[Floats32, Floats32]:
        put = self.batch.put
        logits, features = self.session.target(put(np.stack([ids, ids])), put(np.full(2, pos)))
        return np.asarray(logits), np.asarray(features)

    def draft(self, ids: Ints, features: Floats32, pos: int) -> tuple[Floats32, Floats32]:
        put = self.batch.put
        out = self.session.draft(put(np.stack([ids, ids])), put(features, "float32"), put(np.full(2, pos)))
        return np.asarray(out[0]), np.asarray(out[1])

    def prefill(self, count: int) -> tuple[Floats32, Floats32, Floats32]:
        """Positions 0..count-1 in one go: their features, and the draft's logits and guesses."""
        _, features = self.target(self.codes[:count], 0)
        return features, *self.draft(self.codes[1 : count + 1], features, 0)


@settings(max_examples=40)
@given(program=PROGRAMS, seed=st.integers(0, 2**32 - 1))
def test_after_any_program_steps_are_those_of_a_fresh_prefill(engine: Engine, program: list[Round], seed: int) -> None:
    batch = Batch(engine, seed)
    for step in program:
        batch.play(step)
    assert batch.deviation() < TOLERANCE


REJECTING = [
    Round(3, False, (1, 3, 0), (0, 0, 0)), Round(2, True, (2, 0, 1), (0, 0, 0)), Round(0, False, (0, 0, 0), (0, 0, 0)),
    Round(3, True, (3, 1, 2), (0, 0, 0)),
]  # fmt: skip


def played(batch: Batch) -> Batch:
    for step in REJECTING:
        batch.play(step)
    assert batch.rejections > 0
    return batch


def test_the_program_of_the_plants_is_sound(engine: Engine) -> None:
    batch = played(Batch(engine, 0))
    assert len(set(batch.cached.tolist())) > 1
    assert batch.deviation() < TOLERANCE


@pytest.mark.parametrize("slip", [-1, 1])
def test_a_rollback_off_by_one_shows(engine: Engine, slip: int) -> None:
    assert played(Batch(engine, 0, slip=slip)).deviation() > 1000 * TOLERANCE


def test_guesses_that_stay_in_the_draft_cache_show(engine: Engine) -> None:
    assert played(Batch(engine, 0, keep_guesses=True)).deviation() > 1000 * TOLERANCE
