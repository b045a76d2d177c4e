"""Features of the target's last steps that the draft has not processed yet, ragged over the images of a batch.

After a round with drafts these are the features of the accepted positions. Each round without drafts adds one position.
Knows counters and arrays of a session. Does not know probabilities.

Legend: M images, R rows, C model dim.
"""

from __future__ import annotations

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.law.arrays import namespace
from coolsd_rt.runtime.batch import Batch, gathered
from coolsd_rt.runtime.mates import mates


class PendingFeatures:
    """Features [R, >= longest, C] of each row's positions `drafted..cached-1`, starting at column 0."""

    def __init__(self, batch: Batch, features: Array) -> None:
        """features: [R, S, C] of the first positions."""
        self._batch, self._features = batch, features

    def add(self, features: Array) -> None:
        """Append the features [R, S, C] of a target step that started at `cached`."""
        state = self._batch.state
        num_pending = state.cached - state.drafted
        most = int(num_pending.max())
        if not most:
            self._features = features
            return
        xp = namespace(features)
        rows, size, dim = features.shape
        whole = xp.zeros((rows, most + size, dim), dtype=features.dtype, device=features.device)
        had = min(most, self._features.shape[1])
        whole[:, :had] = self._features[:, :had]
        behind = self._batch.rowwise(num_pending)[:, None] + xp.arange(size, dtype=xp.int64, device=features.device)
        whole[self._batch.row_ids[:, None], behind] = features
        self._features = whole

    def take(self, active: Host, spared: int = 0) -> tuple[Array, Array, Array, Ints]:
        """Return the inputs of a ragged draft step over all pending positions except the last `spared`.

        Returns ids, features, positions, and the number of valid columns of each image, int64 [M]. The state counts
        these positions as drafted from here on.
        """
        batch, state = self._batch, self._batch.state
        num_pending = state.cached - state.drafted - spared
        width = int(num_pending[active].max())
        num_pending = np.minimum(num_pending, width)  # finished images
        known = state.codes[batch.rows[:, None], state.image_index(state.drafted + 1, width)]
        ids, pos = batch.rowwise(known), batch.rowwise(state.drafted)
        state.drafted = np.where(active, state.cached - spared, state.drafted)
        return ids, self._features[:, :width], pos, num_pending

    def leave_one(self, num_pending: Ints) -> None:
        """Keep only the last pending position.

        Call after `take` with `spared=1`, with the `num_pending` [M] that it returned.
        """
        last = np.minimum(np.maximum(num_pending, 0), self._features.shape[1] - 1)
        batch = self._batch
        self._features = self._features[batch.row_ids, batch.rowwise(last)][:, None]

    def keep(self, rows: Ints, other: PendingFeatures | None = None) -> None:
        """Keep `rows` int64 [R'] of these features and, counted on from their last, of `other`, in this order."""
        self._features = gathered([part._features for part in mates(self, other)], self._batch.put(rows))
