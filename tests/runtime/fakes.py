"""A session without a network: tables instead of weights, but with real caches that notice wrong bookkeeping.

P and Q depend on the whole context, which the fake reads back from its own caches, never from the loop. So a stale row
that a mask should hide, a rollback off by one, or swapped CFG rows change the output. What has no legal answer (a draft
row whose feature does not belong to its history, or a predicted feature where a real one is due) is answered with NaN,
which is harmless in padding and fatal where the loop uses it.

A feature is [context index, row, position, 1 if it is the target's own else 0].
Legend: M images, R rows, W prefix, N image tokens, V codes, S positions of a step, T capacity.
"""

from __future__ import annotations

import itertools
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Array, Floats64
from coolsd_rt.contract import ModelDims
from coolsd_rt.ops import process_logits, sample
from coolsd_rt.runtime.interface import Session


def dims(vocab: int, tokens: int, prefix: int = 2) -> ModelDims:
    return ModelDims(vocab, 4, 1, 1, 4, prefix, tokens, 1, 1, 4)


def context_index(tokens: NDArray[np.int64], count: NDArray[np.int64], vocab: int) -> NDArray[np.int64]:
    """Rows of tokens [R, n], of which the first count [R] are the context -> its number among all contexts."""
    index = np.zeros(len(tokens), np.int64)
    for i in range(min(tokens.shape[1], int(count.max(initial=0)))):
        index = np.where(i < count, index * vocab + tokens[:, i] + 1, index)
    return index


def contexts(vocab: int, tokens: int) -> int:
    """How many contexts of 0..tokens-1 tokens there are."""
    return sum(vocab**n for n in range(tokens))


class Tables:
    """Distributions by context index, [contexts, V]: target and draft, conditional and unconditional.

    dtype: the dtype of the logits that a session over the tables returns.
    """

    dtype = "float64"

    def __init__(self, target: Floats64, draft: Floats64, uncond: tuple[Floats64, Floats64] | None = None) -> None:
        other = uncond or (target, draft)
        self.target, self.draft = (target, other[0]), (draft, other[1])

    def as_float32(self) -> Tables:
        """The same tables, for sessions whose logits are float32."""
        other = copy(self)
        other.dtype = "float32"
        return other

    @staticmethod
    def random(vocab: int, tokens: int, seed: int = 0, zeros: bool = False, spread: float = 1.0) -> Tables:
        rng = np.random.default_rng(seed)

        def table() -> Floats64:
            logits = spread * rng.standard_normal((contexts(vocab, tokens), vocab))
            if zeros:  # one code of each row is impossible: supports of P and Q differ
                logits[np.arange(len(logits)), rng.integers(0, vocab, len(logits))] = -np.inf
            weights = np.exp(logits)
            return np.asarray(weights / weights.sum(-1, keepdims=True), np.float64)

        return Tables(table(), table(), (table(), table()))

    def p(self, context: tuple[int, ...], row: int = 0) -> Floats64:
        """P after the context; row 1 is the unconditional one."""
        return self._at(self.target[row], context)

    def q(self, context: tuple[int, ...], row: int = 0) -> Floats64:
        return self._at(self.draft[row], context)

    def _at(self, table: Floats64, context: tuple[int, ...]) -> Floats64:
        vocab = table.shape[1]
        index = context_index(np.array([context], np.int64).reshape(1, -1), np.array([len(context)]), vocab)
        return np.asarray(table[index[0]], np.float64)


_NAMES = itertools.count()


class FakeSession:
    """`Session` over tables. library: "numpy" or "torch". slack: cache rows past the image.
    paced: rounds may go without a draft, whose cache then lags behind."""

    def __init__(
        self,
        tables: Tables,
        dims: ModelDims,
        images: int,
        *,
        guided: bool = False,
        library: str = "numpy",
        propose_length: int = 0,
        slack: int = 8,
        paced: bool = False,
    ) -> None:
        self.tables, self._dims, self.library, self.dtype = tables, dims, library, tables.dtype
        self._propose_length = propose_length
        self.images, self.guided, self.paced = images, guided, paced
        self.rows = images * (2 if guided else 1)
        capacity = dims.positions + slack
        self.target_cache = np.zeros((self.rows, capacity), np.int64)  # token at each position
        self.draft_cache = np.zeros((self.rows, capacity), np.int64)  # token at each position + 1
        self.draft_real = np.zeros((self.rows, capacity), bool)
        self.draft_broken = np.zeros((self.rows, capacity), bool)
        self.calls: list[str] = []
        # A feature names its row, so that features of another image or another guidance row are noticed.
        self.names = next(_NAMES) * 1000 + np.arange(self.rows)

    @property
    def dims(self) -> ModelDims:
        return self._dims

    @property
    def propose_length(self) -> int:
        return self._propose_length

    def asarray(self, data: Any, dtype: str) -> Array:
        if self.library == "torch":
            import torch

            return torch.as_tensor(np.ascontiguousarray(data), dtype=getattr(torch, dtype))
        return np.asarray(data, dtype)

    def target(self, ids: Array, pos: Array) -> tuple[Array, Array]:
        self.calls.append("target")
        ids_, pos_ = self._in(ids, np.int64), self._in(pos, np.int64)
        assert len(ids_) == self.rows
        self._check_draft(pos_)
        width, d = ids_.shape[1], self._dims
        at = pos_[:, None] + np.arange(width)
        np.put_along_axis(self.target_cache, at, ids_, axis=1)
        logits = np.empty((self.rows, width, d.vocab))
        features = np.empty((self.rows, width, 4))
        for s in range(width):
            index = context_index(self.target_cache[:, d.prefix :], at[:, s] + 1 - d.prefix, d.vocab)
            logits[:, s] = self._log(self.tables.target, index)
            features[:, s] = np.stack([index, self.names, at[:, s], np.ones(self.rows)], axis=-1)
        return self._out(logits), self._out(features, "float64")

    def draft(self, ids: Array, features: Array, pos: Array) -> tuple[Array, Array]:
        self.calls.append("draft")
        return self._draft(ids, features, pos)

    def propose(
        self,
        ids: Array,
        features: Array,
        pos: Array,
        count: Array,
        uniforms: Array,
        scale: Array,
        temperature: float,
        top_k: int,
    ) -> tuple[Array, Array]:
        """The same in one call, written after the contract rather than after the loop."""
        self.calls.append("propose")
        assert self.guided
        assert tuple(uniforms.shape) == (self.images, self._propose_length) == tuple(scale.shape)
        rows, last = np.arange(self.rows), self._in(count, np.int64) - 1
        logits, predicted = (self._in(x) for x in self._draft(ids, features, pos))
        logits, predicted, at = logits[rows, last], predicted[rows, last], self._in(pos, np.int64) + last
        tokens, probs = [], []
        for i in range(self._propose_length):
            q = process_logits(logits[:, None], self._in(scale)[:, i : i + 1], temperature, top_k, 1.0)
            # A graph cannot raise: a row of NaN yields some token, and its NaN goes out for `verify` to find.
            tokens.append(sample(np.where(np.isnan(q), 1.0, q), self._in(uniforms)[:, i : i + 1]))
            probs.append(q)
            at = at + 1
            step = self._draft(np.concatenate([tokens[-1]] * 2), predicted[:, None], at)
            logits, predicted = (self._in(x)[:, 0] for x in step)
        return self.asarray(np.concatenate(tokens, 1), "int64"), self._out(np.concatenate(probs, 1))

    def _draft(self, ids: Array, features: Array, pos: Array) -> tuple[Array, Array]:
        ids_, pos_, features_ = self._in(ids, np.int64), self._in(pos, np.int64), self._in(features, np.float64)
        width, d = ids_.shape[1], self._dims
        assert features_.shape == (self.rows, width, 4)
        at = pos_[:, None] + np.arange(width)
        np.put_along_axis(self.draft_cache, at, ids_, axis=1)
        logits = np.empty((self.rows, width, d.vocab))
        predicted = np.empty((self.rows, width, 4))
        for s in range(width):
            own, row, position, real = (features_[:, s, i] for i in range(4))
            seen = self.draft_cache[:, d.prefix - 1 :]  # image tokens, as the draft's rows hold them
            before, index = (context_index(seen, at[:, s] + n - d.prefix, d.vocab) for n in (1, 2))
            np.put_along_axis(self.draft_real, at[:, s : s + 1], real[:, None] == 1, axis=1)
            wrong = (own != before) | (row != self.names) | (position != at[:, s])
            np.put_along_axis(self.draft_broken, at[:, s : s + 1], wrong[:, None], axis=1)
            visible = np.arange(self.draft_broken.shape[1]) <= at[:, s : s + 1]
            logits[:, s] = self._log(self.tables.draft, index)
            logits[(self.draft_broken & visible).any(1), s] = np.nan
            predicted[:, s] = np.stack([index, self.names, at[:, s] + 1, np.zeros(self.rows)], axis=-1)
        return self._out(logits), self._out(predicted, "float64")

    def _check_draft(self, pos: NDArray[np.int64]) -> None:
        """When the target moves on from `pos`, everything before it is decided: no draft row may be a guess there."""
        d = self._dims
        if self.paced or not self.draft_real.any():
            return
        for row in np.flatnonzero(pos < d.positions - 2):  # later the drafts are clipped to none
            assert self.draft_real[row, : pos[row]].all(), f"row {row}: a predicted feature stays before {pos[row]}"

    def _log(self, tables: tuple[Floats64, Floats64], index: NDArray[np.int64]) -> Floats64:
        """Log distributions [R, V]; past the image's end the index has no row, and any finite answer will do."""
        index = np.minimum(index, len(tables[0]) - 1)
        uncond = np.arange(self.rows) >= self.images
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.where(uncond[:, None], tables[1][index], tables[0][index])), np.float64)

    def _in(self, array: Array, dtype: Any = None) -> NDArray[Any]:
        return np.asarray(array if isinstance(array, np.ndarray) else array.numpy(), dtype)

    def _out(self, array: NDArray[Any], dtype: str | None = None) -> Array:
        return self.asarray(array, dtype or self.dtype)


class FakeRowSession(FakeSession):
    """A `RowSession` over tables: rows leave it, and rows of another one enter."""

    def take(self, rows: NDArray[np.int64], other: Session | None = None) -> None:
        self.calls.append("take")
        mates = [self] if other is None else [self, other]
        for name in ("target_cache", "draft_cache", "draft_real", "draft_broken", "names"):
            setattr(self, name, np.concatenate([getattr(mate, name) for mate in mates])[rows])
        self.paced |= bool(getattr(other, "paced", False))
        self.rows = len(rows)
        self.images = self.rows // (2 if self.guided else 1)
