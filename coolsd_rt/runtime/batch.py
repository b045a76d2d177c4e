"""Per-batch state of the decoding loop: row layout, CFG scales, forced tokens, uniforms, logits to probabilities.

Shared by the round and every drafter. Knows how per-image values become per-row arrays of the session. Does not know
where drafts come from or how they are verified. Legend as in `coolsd_rt.runtime.round`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.law.arrays import namespace
from coolsd_rt.ops import process_logits
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.state import State
from coolsd_rt.runtime.statistics import Statistics, Stopwatch

_NAMES = {np.dtype(name): name for name in ("int64", "float32", "float64", "bool")}  # str(dtype) takes microseconds


class Window(NamedTuple):
    """The values that one round uses, one entry per image. Window index i counts from the first undecided token."""

    active: Host  # bool [M], the images that are not finished
    at: Ints  # [M, L + 1], the image token of each window index
    uniforms: Host  # [M, L + 1, 3], last axis: purpose
    scale: Array | None  # CFG scale [M, L + 1]; None without CFG


class Batch:
    """The values of a batch that stay the same in every round, its `state`, and the finished images."""

    def __init__(
        self, session: Session, sampling: Sampling, uniforms: Host, forced: Ints | None, clock: Callable[[], float]
    ) -> None:
        """uniforms: [M, N, L + 1, 3] as `uniform_table` lays them out. forced: int64 [N], -1 = free, or None."""
        dims, images = session.dims, uniforms.shape[0]
        self.session, self.sampling, self.forced = session, sampling, forced
        self.state = State.empty(images, dims)
        self.length = uniforms.shape[2] - 1
        self.statistics = Statistics.empty(images, self.length)
        self.watch = Stopwatch(self.statistics.seconds, clock)
        self.rows = np.arange(images)
        self.paired = sampling.guided
        self.row_ids = self.rowwise(self.rows, offset=images)
        self.idle: Array | None = None  # bool [M], the finished images; None while there are none
        self.uniforms, self._scales = uniforms, sampling.scales(dims.tokens)
        self._offsets = np.arange(self.length + 1)

    def window(self, active: Host) -> Window:
        """Return the window of the next round, which starts at each image's first undecided token."""
        at = self.state.image_index(self.state.committed, self.length + 1)
        uniforms = self.uniforms[self.rows[:, None], at, self._offsets]
        return Window(active, at, uniforms, self.scale(at))

    def put(self, host: Host) -> Array:
        """Copy a host array to the session's array type."""
        return self.session.asarray(host, _NAMES[host.dtype])

    def rowwise(self, host: Host, offset: int = 0) -> Array:
        """Repeat a value per image [M] to a value per row [R], int64. `offset` is added in the unconditional rows."""
        return self.put(np.concatenate([host, host + offset]) if self.paired else host)

    def both(self, ids: Array) -> Array:
        """Repeat a session's array [M, ...] to [R, ...]: both rows of an image have the same ids."""
        return namespace(ids).concat([ids, ids], axis=0) if self.paired else ids

    def scale(self, at: Ints) -> Array | None:
        """Return the CFG scale of each image token, with the shape of `at`; None without CFG."""
        return self.put(self._scales[at]) if self.paired else None

    def distribution(self, logits: Array, scale: Array | None, at: Ints, start: int = 0) -> Array:
        """Return P or Q [M, S, V] at window indices start..start+S-1. A forced token is a point mass in both."""
        window = slice(start, start + logits.shape[1])
        s = self.sampling
        probs = process_logits(logits, None if scale is None else scale[:, window], s.temperature, s.top_k, s.top_p)
        if self.idle is not None:  # rows of finished images may hold anything, NaN included
            probs[self.idle] = 1.0 / probs.shape[-1]
        return self.pinned(probs, at[:, window])

    def pinned(self, probs: Array, at: Ints) -> Array:
        """Set distributions [M, S, V] of image tokens `at` [M, S] to point masses, in place, at forced tokens."""
        if self.forced is not None:
            ids = self.forced[at]
            for row, i in np.argwhere(ids >= 0).tolist():
                probs[row, i] = 0.0
                probs[row, i, int(ids[row, i])] = 1.0
        return probs

    def forced_mask(self, at: Ints) -> Array | None:
        """Return bool with the shape of `at`: which image tokens are forced; None if none is."""
        if self.forced is None:
            return None
        mask = self.forced[at] >= 0
        return self.session.asarray(mask, "bool") if mask.any() else None


def to_host(array: Array) -> Host:
    """Copy a session's array to the host.

    For small results, once per round; large arrays stay where they are computed.
    """
    return array if isinstance(array, np.ndarray) else np.asarray(array.tolist())
