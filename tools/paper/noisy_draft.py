"""A draft of any quality: the target itself, with noise on its logits.

For experiments on how a law depends on TV(P, Q): at noise 0 the draft is the target, and with growing noise it gets
worse without end. Knows sessions. Does not know laws.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Array
from coolsd_rt.contract import ModelDims
from coolsd_rt.runtime.interface import Engine, Session

TABLE_CODES = 8192  # a table of more codes is not kept: 256 MiB


class WholeTable:
    """A table of deviates [V, V], kept."""

    def __init__(self, noise: float, vocab: int, seed: int) -> None:
        self._table = np.float32(noise) * np.random.default_rng(seed).standard_normal((vocab, vocab), np.float32)

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows of tokens, [..., V]."""
        return np.asarray(self._table[ids])


class DrawnRows:
    """A table of deviates [V, V] whose rows are drawn when they are read: a row depends on the seed and its token."""

    def __init__(self, noise: float, vocab: int, seed: int) -> None:
        self._noise, self._vocab, self._seed = np.float32(noise), vocab, seed

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows of tokens, [..., V]."""
        out = np.empty((ids.size, self._vocab), np.float32)
        for row, token in enumerate(ids.ravel().tolist()):
            stream = np.random.Generator(np.random.Philox(key=np.array([self._seed, token], np.uint64)))
            stream.standard_normal(out=out[row], dtype=np.float32)
        return (self._noise * out).reshape(*ids.shape, self._vocab)


class NoisyTarget:
    """An engine whose draft is its own target, logits plus `noise` standard normal deviates.

    The deviates are a table by last token and code, [V, V], the same for both rows of a CFG pair: so the draft
    is a model (one distribution for each context), and guidance leaves the noise as it is. For the drafter `model`.
    """

    def __init__(self, engine: Engine, noise: float, seed: int = 0) -> None:
        self._engine = engine
        d = engine.dims
        self._dims = replace(d, draft_layers=d.layers, draft_heads=d.heads, draft_head_dim=d.head_dim, draft_dim=d.dim)
        kind = WholeTable if d.vocab <= TABLE_CODES else DrawnRows
        self._noise = kind(noise, d.vocab, seed)

    @property
    def dims(self) -> ModelDims:
        return self._dims

    def encode_condition(self, condition: Array) -> Array:
        return np.asarray(self._engine.encode_condition(condition))[..., : self._dims.dim]

    def open(self, prefix: Array, capacity: int, start: Array | None = None) -> NoisySession:
        sessions = [self._engine.open(prefix, capacity, start) for _ in range(2)]
        return NoisySession(sessions[0], sessions[1], self._dims, self._noise)

    def decode_images(self, codes: Array) -> Array:
        return self._engine.decode_images(codes)


class NoisySession:
    """Two sessions of the target: one judges, one drafts."""

    def __init__(self, target: Session, draft: Session, dims: ModelDims, noise: WholeTable | DrawnRows) -> None:
        self.dims, self._target, self._draft, self._noise = dims, target, draft, noise

    def asarray(self, data: Any, dtype: str) -> Array:
        return self._target.asarray(data, dtype)

    def target(self, ids: Array, pos: Array) -> tuple[Array, Array]:
        return self._target.target(ids, pos)

    def draft(self, ids: Array, features: Array | None, pos: Array) -> tuple[Array, Array]:
        logits, features = self._draft.target(ids, pos)
        return logits + self._draft.asarray(self._noise.rows(np.asarray(ids)), "float32"), features
