"""Per-batch state of the decoding loop: row layout, CFG scales, forced tokens, uniforms, logits to probabilities.

Shared by the round and every drafter. Knows how per-image values become per-row arrays of the session. Does not
know where drafts come from, nor how they are verified. Legend as in `coolsd_rt.runtime.round`.
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

_NAMES = {np.dtype(name): name for name in ("int64", "float32", "float64", "bool")}  # str(dtype) costs microseconds


class Window(NamedTuple):
    """Values that a round uses: one entry per image; window index i counts from the first undecided token."""

    active: Host  # bool [M], images that are not finished
    at: Ints  # [M, L + 1], the image token of each window index
    uniforms: Host  # [M, L + 1, 3], by purpose
    scale: Array | None  # CFG scale [M, L + 1]; None without CFG


class Batch:
    """The values of a batch that no round changes, its `state`, and the idle images."""

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
        self.idle: Array | None = None  # bool [M], finished images, once there are any
        self.uniforms, self._scales = uniforms, sampling.scales(dims.tokens)
        self._offsets = np.arange(self.length + 1)

    def window(self, active: Host) -> Window:
        """The next round's, from each image's first undecided token on."""
        at = self.state.image_index(self.state.committed, self.length + 1)
        uniforms = self.uniforms[self.rows[:, None], at, self._offsets]
        return Window(active, at, uniforms, self.scale(at))

    def put(self, host: Host) -> Array:
        """A host array as the session's."""
        return self.session.asarray(host, _NAMES[host.dtype])

    def rowwise(self, host: Host, offset: int = 0) -> Array:
        """Per image -> per row, int64. The unconditional row is given what the conditional one is given."""
        return self.put(np.concatenate([host, host + offset]) if self.paired else host)

    def both(self, ids: Array) -> Array:
        """The same, for an array of the session's."""
        return namespace(ids).concat([ids, ids], axis=0) if self.paired else ids

    def scale(self, at: Ints) -> Array | None:
        """CFG scale of each image token, shaped as `at`; None without CFG."""
        return self.put(self._scales[at]) if self.paired else None

    def distribution(self, logits: Array, scale: Array | None, at: Ints, start: int = 0) -> Array:
        """P or Q [M, S, V] of window indices start..start+S-1; a forced token is a point mass in both."""
        window = slice(start, start + logits.shape[1])
        s = self.sampling
        probs = process_logits(logits, None if scale is None else scale[:, window], s.temperature, s.top_k, s.top_p)
        if self.idle is not None:  # whatever a finished image's rows hold, NaN included, it must not matter
            probs[self.idle] = 1.0 / probs.shape[-1]
        return self.pinned(probs, at[:, window])

    def pinned(self, probs: Array, at: Ints) -> Array:
        """Distributions [M, S, V] of image tokens `at` [M, S], with a point mass, in place, where one is forced."""
        if self.forced is not None:
            ids = self.forced[at]
            for row, i in np.argwhere(ids >= 0).tolist():
                probs[row, i] = 0.0
                probs[row, i, int(ids[row, i])] = 1.0
        return probs

    def forced_mask(self, at: Ints) -> Array | None:
        """bool, shaped as `at`, of the forced image tokens; None if there are none."""
        if self.forced is None:
            return None
        mask = self.forced[at] >= 0
        return self.session.asarray(mask, "bool") if mask.any() else None


def to_host(array: Array) -> Host:
    """Small results come to the host once a round; the rest stays where the session computes."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.tolist())
