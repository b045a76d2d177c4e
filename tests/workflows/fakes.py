"""An engine without a network: a decayed sum of random embeddings, with real caches, on NumPy. Milliseconds an image.

Its logits depend on the prompt, on every token before, and on which CFG row it is, so that mixed-up rows, images,
seeds or prefixes change the tokens. `error` moves every logit a little, as another backend's arithmetic would.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.contract import ModelDims
from coolsd_rt.prompts import WordVocabulary

DIMS = ModelDims(
    vocab=24, dim=6, layers=1, heads=1, head_dim=6, prefix=4, tokens=16, draft_layers=1, draft_heads=1, draft_head_dim=6
)
VOCABULARY = WordVocabulary.from_captions(["red apple", "green apple", "yellow star"], prefix=DIMS.prefix)
SIDE = 8


class FakeEngine:
    def __init__(self, error: float = 0.0, draft_error: float = 0.7, dims: ModelDims = DIMS) -> None:
        rng = np.random.default_rng(0)
        self._dims, self.error, self.draft_error = dims, error, draft_error
        self.words = rng.standard_normal((64, dims.dim))
        self.codes = rng.standard_normal((dims.vocab, dims.dim))
        self.head = rng.standard_normal((dims.dim, dims.vocab))
        self.draft_head = self.head + draft_error * rng.standard_normal(self.head.shape)
        self.ripple = rng.standard_normal((3, dims.vocab))
        self.opened: list[int] = []  # rows of each session
        self.decoded: list[int] = []  # images of each decode_images

    @property
    def dims(self) -> ModelDims:
        return self._dims

    def encode_condition(self, condition: Any) -> Any:
        return self.words[np.asarray(condition)].astype(np.float32)

    def open(self, prefix: Any, capacity: int, start: Any = None) -> FakeSession:
        self.opened.append(len(prefix))
        return FakeSession(self, np.asarray(prefix), capacity)

    def decode_images(self, codes: Any) -> NDArray[np.uint8]:
        codes = np.asarray(codes)
        self.decoded.append(len(codes))
        cells = (codes * 9 % 256).astype(np.uint8).reshape(len(codes), 4, 4, 1)
        return np.repeat(np.repeat(np.repeat(cells, 2, 1), 2, 2), 3, 3)


class FakeSession:
    """Target and draft share one cache of token embeddings by position; the draft's own is written one position on."""

    def __init__(self, engine: FakeEngine, prefix: NDArray[Any], capacity: int) -> None:
        self.engine, self.dims, self.given = engine, engine.dims, prefix
        self.seen = {kind: np.zeros((len(prefix), capacity + 2, engine.dims.dim)) for kind in ("target", "draft")}

    def asarray(self, data: Any, dtype: str) -> Any:
        return np.asarray(data, dtype)

    def target(self, ids: Any, pos: Any) -> tuple[Any, Any]:
        state = self._step("target", ids, pos)
        return self._logits(state, self.engine.head), state.astype(np.float32)

    def draft(self, ids: Any, features: Any, pos: Any) -> tuple[Any, Any]:
        state = self._step("draft", ids, pos + 1)
        state = 0.5 * state + 0.5 * np.asarray(features)
        return self._logits(state, self.engine.draft_head), state.astype(np.float32)

    def _step(self, kind: str, ids: Any, pos: Any) -> NDArray[np.float64]:
        width, rows = ids.shape[1], np.arange(len(ids))
        states = []
        for s in range(width):
            at = np.asarray(pos) + s
            before = self.given[rows, np.minimum(at, self.dims.prefix - 1)]
            value = np.where((at < self.dims.prefix)[:, None], before, self.engine.codes[ids[:, s]])
            self.seen[kind][rows, np.minimum(at, self.seen[kind].shape[1] - 1)] = value
            age = at[:, None] - np.arange(self.seen[kind].shape[1])
            weight = np.where(age >= 0, 0.8 ** np.maximum(age, 0), 0.0)
            states.append(np.einsum("rt,rtc->rc", weight, self.seen[kind]))
        return np.stack(states, 1)

    def _logits(self, state: NDArray[np.float64], head: NDArray[np.float64]) -> Any:
        wave = np.sin(state[..., :3] * 17) @ self.engine.ripple
        return (state @ head * 0.35 + self.engine.error * wave).astype(np.float32)
