"""A fake session whose steps take trees: contexts are what `seen` exposes, caches are rows that `move` moves.

A step's context is the visible cache rows in the order of their positions; of rows at one position, in the order of
their places in the step. So a mask that shows a sibling, or hides an ancestor, gives another context, and so does a row
that was not moved. The target's cache also keeps which context a row was computed in: a row that stands behind another
context, as one of a wrong branch would, is answered with NaN. Where `strict` is off nothing is, as on an engine, and
what is wrong shows in the tokens alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Array
from tests.runtime.fakes import FakeRowSession, FakeSession

Ints = NDArray[np.int64]
UNWRITTEN = -1


class FakeTreeSession(FakeSession):
    """`TreeSession` over tables; its chains are trees too."""

    strict = True

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.target_made = np.full_like(self.target_cache, UNWRITTEN)  # context index of each row, its token included

    def target(self, ids: Array, pos: Array) -> tuple[Array, Array]:
        self.calls.append("target")
        return self._target_tree(ids, pos, *self._chain(ids.shape[1]))

    def target_tree(self, ids: Array, pos: Array, depth: Array, seen: Array) -> tuple[Array, Array]:
        self.calls.append("target_tree")
        return self._target_tree(ids, pos, self._in(depth, np.int64), self._in(seen, bool))

    def draft_tree(self, ids: Array, features: Array, pos: Array, depth: Array, seen: Array) -> tuple[Array, Array]:
        self.calls.append("draft_tree")
        return self._draft_tree(ids, features, pos, self._in(depth, np.int64), self._in(seen, bool))

    def move(self, pos: Ints, path: Ints, count: Ints) -> None:
        self.calls.append("move")
        assert path.shape[0] == len(pos) == len(count) == self.rows
        for r in range(self.rows):
            n = int(count[r])
            assert (np.diff(path[r, :n]) > 0).all()
            to, of = pos[r] + 1 + np.arange(n), pos[r] + 1 + path[r, :n]
            for cache in (self.target_cache, self.target_made):
                cache[r, to] = cache[r, of]

    def _draft(self, ids: Array, features: Array, pos: Array) -> tuple[Array, Array]:
        return self._draft_tree(ids, features, pos, *self._chain(ids.shape[1]))

    def _chain(self, width: int) -> tuple[Ints, NDArray[np.bool_]]:
        depth, seen = np.arange(width), np.tri(width, dtype=bool)
        return np.tile(depth, (self.rows, 1)), np.tile(seen, (self.rows, 1, 1))

    def _ordered(self, first: int, pos: Ints, depth: Ints, seen: NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """The cache rows from `first` on that one step position sees [R, T], in order, and how many they are [R].

        depth: [R, S]. seen: [R, S] of this position.
        """
        slots, width = np.arange(self.target_cache.shape[1]), depth.shape[1]
        place = slots - pos[:, None]
        inside = (place >= 0) & (place < width)
        index = np.clip(place, 0, width - 1)
        visible = (slots < pos[:, None]) | (inside & np.take_along_axis(seen, index, axis=1))
        visible &= np.where(inside, pos[:, None] + np.take_along_axis(depth, index, axis=1), slots) >= first
        position = np.where(inside, pos[:, None] + np.take_along_axis(depth, index, axis=1), slots)
        order = np.argsort(np.where(visible, position * 1000 + slots, 10**9), axis=1, kind="stable")
        return order, visible.sum(axis=1)

    def _read(self, cache: Ints, made: Ints | None, order: Ints, count: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """The context index of the rows, that without the last, and whether a row stands behind another context."""
        index = before = np.zeros(len(order), np.int64)
        wrong = np.zeros(len(order), bool)
        for i in range(int(count.max(initial=0))):
            now = i < count
            row = order[:, i : i + 1]
            before = np.where(now, index, before)
            index = np.where(now, index * self.dims.vocab + np.take_along_axis(cache, row, axis=1)[:, 0] + 1, index)
            if made is not None:
                wrong |= (i < count - 1) & (index != np.take_along_axis(made, row, axis=1)[:, 0])
        return index, before, wrong

    def _target_tree(self, ids: Array, pos: Array, depth: Ints, seen: NDArray[np.bool_]) -> tuple[Array, Array]:
        ids_, pos_, d = self._in(ids, np.int64), self._in(pos, np.int64), self.dims
        width = ids_.shape[1]
        assert len(ids_) == self.rows
        assert depth.shape == ids_.shape
        assert seen.shape == (self.rows, width, width)
        self._check_draft(pos_)
        at = pos_[:, None] + np.arange(width)
        np.put_along_axis(self.target_cache, at, ids_, axis=1)
        logits = np.empty((self.rows, width, d.vocab))
        features = np.empty((self.rows, width, 4))
        for s in range(width):
            order, count = self._ordered(d.prefix, pos_, depth, seen[:, s])
            index, _, wrong = self._read(self.target_cache, self.target_made, order, count)
            np.put_along_axis(self.target_made, at[:, s : s + 1], index[:, None], axis=1)
            logits[:, s] = self._log(self.tables.target, index)
            logits[wrong & self.strict, s] = np.nan
            features[:, s] = np.stack([index, self.names, pos_ + depth[:, s], np.ones(self.rows)], axis=-1)
        return self._out(logits), self._out(features, "float64")

    def _draft_tree(
        self, ids: Array, features: Array | None, pos: Array, depth: Ints, seen: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        ids_, pos_, features_ = self._in(ids, np.int64), self._in(pos, np.int64), self._in(features, np.float64)
        width, d = ids_.shape[1], self.dims
        assert features_.shape == (self.rows, width, 4)
        assert depth.shape == ids_.shape
        assert seen.shape == (self.rows, width, width)
        at = pos_[:, None] + np.arange(width)
        np.put_along_axis(self.draft_cache, at, ids_, axis=1)
        logits = np.empty((self.rows, width, d.vocab))
        predicted = np.empty((self.rows, width, 4))
        for s in range(width):
            own, row, position, real = (features_[:, s, i] for i in range(4))
            order, count = self._ordered(d.prefix - 1, pos_, depth, seen[:, s])  # row t holds the token at t + 1
            index, before, _ = self._read(self.draft_cache, None, order, count)
            np.put_along_axis(self.draft_real, at[:, s : s + 1], real[:, None] == 1, axis=1)
            wrong = (own != before) | (row != self.names) | (position != pos_ + depth[:, s])
            np.put_along_axis(self.draft_broken, at[:, s : s + 1], wrong[:, None], axis=1)
            broken = np.take_along_axis(self.draft_broken, order, axis=1) & self.strict
            logits[:, s] = self._log(self.tables.draft, index)
            logits[(broken & (np.arange(broken.shape[1]) < count[:, None])).any(1), s] = np.nan
            predicted[:, s] = np.stack([index, self.names, pos_ + depth[:, s] + 1, np.zeros(self.rows)], axis=-1)
        return self._out(logits), self._out(predicted, "float64")


class FakeTreeRowSession(FakeTreeSession, FakeRowSession):
    """Its rows leave it and enter it, as those of `FakeRowSession`."""

    def take(self, rows: Ints, other: Any = None) -> None:
        mates = [self] if other is None else [self, other]
        self.target_made = np.concatenate([mate.target_made for mate in mates])[rows]
        super().take(rows, other)
