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


class NoisyTarget:
    """An engine whose draft is its own target, logits plus `noise` standard normal deviates.

    The deviates are a table by last token and code, float32 [V, V], the same for both rows of a CFG pair: so the draft
    is a model (one distribution for each context), and guidance leaves the noise as it is. For the drafter `model`.
    """

    def __init__(self, engine: Engine, noise: float, seed: int = 0) -> None:
        self._engine = engine
        d = engine.dims
        self._dims = replace(d, draft_layers=d.layers, draft_heads=d.heads, draft_head_dim=d.head_dim, draft_dim=d.dim)
        table = np.random.default_rng(seed).standard_normal((d.vocab, d.vocab), np.float32)
        self._noise = np.float32(noise) * table

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

    def __init__(self, target: Session, draft: Session, dims: ModelDims, noise: NDArray[np.float32]) -> None:
        self.dims, self._target, self._draft, self._noise = dims, target, draft, noise

    def asarray(self, data: Any, dtype: str) -> Array:
        return self._target.asarray(data, dtype)

    def target(self, ids: Array, pos: Array) -> tuple[Array, Array]:
        return self._target.target(ids, pos)

    def draft(self, ids: Array, features: Array | None, pos: Array) -> tuple[Array, Array]:
        logits, features = self._draft.target(ids, pos)
        return logits + self._draft.asarray(self._noise[np.asarray(ids)], "float32"), features
