"""Features of the target's last steps that the draft has not processed yet, ragged over the images of a batch.

After a round with drafts it is that round's accepted positions; after rounds without any it grows by a position each.
Knows counters and arrays of a session. Does not know probabilities.

Legend: M images, R rows, C model dim.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.law.arrays import namespace
from coolsd_rt.runtime.state import State


class PendingFeatures:
    """Features [R, >= longest, C] of positions `drafted..cached-1` of each row, from column 0 on."""

    def __init__(self, state: State, rowwise: Callable[[Host], Array], row_ids: Array, features: Array) -> None:
        """rowwise: a value per image -> per row, as the session's array. row_ids: int64 [R], 0, 1, ..."""
        self._state, self._rowwise, self._row_ids, self._features = state, rowwise, row_ids, features
        self._rows = np.arange(len(state.cached))

    def add(self, features: Array) -> None:
        """The features [R, S, C] of a target step at `cached`, behind those that are here."""
        num_pending = self._state.cached - self._state.drafted
        most = int(num_pending.max())
        if not most:
            self._features = features
            return
        xp = namespace(features)
        rows, size, dim = features.shape
        whole = xp.zeros((rows, most + size, dim), dtype=features.dtype, device=features.device)
        had = min(most, self._features.shape[1])
        whole[:, :had] = self._features[:, :had]
        behind = self._rowwise(num_pending)[:, None] + xp.arange(size, dtype=xp.int64, device=features.device)
        whole[self._row_ids[:, None], behind] = features
        self._features = whole

    def take(self, active: Host, spared: int = 0) -> tuple[Array, Array, Array, Ints]:
        """A ragged draft step over all but the last `spared`: ids, features, positions, and how many columns of it are
        each image's own, int64 [M]. They count as seen from here on."""
        state = self._state
        num_pending = state.cached - state.drafted - spared
        width = int(num_pending[active].max())
        num_pending = np.minimum(num_pending, width)  # finished images
        known = state.codes[self._rows[:, None], state.image_index(state.drafted + 1, width)]
        ids, pos = self._rowwise(known), self._rowwise(state.drafted)
        state.drafted = np.where(active, state.cached - spared, state.drafted)
        return ids, self._features[:, :width], pos, num_pending

    def leave_one(self, num_pending: Ints) -> None:
        """After `take` with one spared and its `num_pending` [M]: that one is all that is left."""
        last = np.minimum(np.maximum(num_pending, 0), self._features.shape[1] - 1)
        self._features = self._features[self._row_ids, self._rowwise(last)][:, None]
