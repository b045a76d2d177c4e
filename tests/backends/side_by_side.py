"""An engine on ONNX Runtime and the eager reference on the same inputs: whatever comes out is compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coolsd_rt.backends.onnxruntime.engine import OrtEngine
from coolsd_rt.backends.onnxruntime.session import OrtSession
from coolsd_rt.backends.torch.eager import TorchEngine, TorchSession
from tests.tiny import TARGET, VOCABULARY

W, VOCAB, CAPACITY = TARGET.prefix, TARGET.vocab, 100
Array = NDArray[Any]


def words(images: int) -> NDArray[np.int64]:
    """Conditional rows, then unconditional ones."""
    rng = np.random.default_rng(0)
    conditional = rng.integers(3, len(VOCABULARY.words), (images, W))
    return np.concatenate([conditional, np.full((images, W), 2)])


class Both:
    """One batch on both sides, on the same inputs; compares whatever comes out."""

    def __init__(self, engine: OrtEngine, reference: TorchEngine, images: int, tolerance: float = 1e-4) -> None:
        self.tolerance = tolerance
        prefix = engine.encode_condition(words(images))
        self.close(prefix, reference.encode_condition(words(images)))
        self.tested: OrtSession = engine.open(prefix, CAPACITY)
        self.wanted: TorchSession = reference.open(torch.from_numpy(prefix), 2 * CAPACITY)
        self.rows, self.rng = 2 * images, np.random.default_rng(1)

    def close(self, found: Array, wanted: torch.Tensor) -> None:
        assert found.shape == tuple(wanted.shape)
        assert np.abs(found - wanted.numpy()).max() < self.tolerance

    def ids(self, size: int) -> NDArray[np.int64]:
        return self.rng.integers(0, VOCAB, (self.rows, size))

    def target(self, size: int, pos: Array) -> Array:
        ids = self.ids(size)
        found = self.tested.target(ids, pos)
        wanted = self.wanted.target(torch.from_numpy(ids), torch.from_numpy(pos))
        for a, b in zip(found, wanted, strict=True):
            self.close(a, b)
        return found[1]

    def draft(self, features: Array, pos: Array) -> None:
        ids = self.ids(features.shape[1])
        found = self.tested.draft(ids, features, pos)
        wanted = self.wanted.draft(torch.from_numpy(ids), torch.from_numpy(features), torch.from_numpy(pos))
        for a, b in zip(found, wanted, strict=True):
            self.close(a, b)
