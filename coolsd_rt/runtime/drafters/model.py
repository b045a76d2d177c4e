"""Drafts of an independent small model with a separate KV cache.

Knows the model's cache: row t is the token at position t, and its logits are the distribution of position t + 1.
`drafted` counts rows made from decided tokens; between rounds `drafted <= committed`, and the rows between enter in the
next step. Does not use the target's features. Source: Leviathan et al., 2023. Legend as in `coolsd_rt.runtime.round`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.runtime.batch import Batch, Window
from coolsd_rt.runtime.drafters.chain import chain
from coolsd_rt.runtime.state import CATCH_UP

if TYPE_CHECKING:
    from coolsd_rt.runtime.drafters import Drafter


class ModelDrafter:
    """Drafts with a small model.

    Cache rows made from drafts are at or after `drafted`; the next round overwrites them.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch, self._session = batch, batch.session

    def prefill(self, features: Array) -> None:
        """Step the model over the prefix."""
        batch, state = self._batch, self._batch.state
        for ids in batch.blanks(features.shape[1]):
            self._session.draft(ids, None, batch.rowwise(state.drafted))
            state.drafted += ids.shape[1]
            batch.watch.lap("draft")

    def draft(self, window: Window, num_drafts: Ints) -> tuple[Ints, Array, Array]:
        """Step the model over the newly decided tokens, then over its own drafts.

        The first step is ragged, padded to the longest row; the mask hides the cache rows that padding writes.
        """
        batch, count = self._batch, int(num_drafts.max())
        logits, num_pending = self._enter(window.active)
        logits = logits[batch.row_ids, batch.rowwise(num_pending - 1)][:, None]

        def step(i: int, token: Array) -> Array:
            """Step on the model's own drafts. The next round overwrites the cache rows that this writes."""
            logits, _ = self._session.draft(token, None, batch.rowwise(batch.state.committed + i - 1))
            return logits

        return num_drafts, *chain(batch, window, count, logits, step)

    def _enter(self, active: Host, spared: int = 0) -> tuple[Array, Ints]:
        """Step over the decided tokens except the last `spared`.

        Returns logits [R, S, V], and the number of valid columns of each image, int64 [M].
        """
        batch, state = self._batch, self._batch.state
        num_pending = state.committed - state.drafted - spared
        width = int(num_pending[active].max())
        num_pending = np.clip(num_pending, 1, width)  # finished images
        known = state.codes[batch.rows[:, None], state.image_index(state.drafted, width)]
        ids, pos = batch.rowwise(known), batch.rowwise(state.drafted)
        batch.watch.lap("other")
        logits, _ = self._session.draft(ids, None, pos)
        state.drafted = np.where(active, state.committed - spared, state.drafted)
        return logits, num_pending

    def seen(self, features: Array) -> None:
        """Do nothing: this drafter uses tokens only."""

    def evaluated(self, p: Array, q: Array, drafts: Array, accepted: Ints, num_drafts: Ints, window: Window) -> None:
        """Do nothing: the next drafts come from the decided tokens."""

    def committed(self, active: Host) -> None:
        """Update the model's cache after `CATCH_UP` rounds without a draft, so that its next step stays narrow."""
        state = self._batch.state
        if int((state.committed - state.drafted)[active].max()) > CATCH_UP:
            self._enter(active, spared=1)  # the last token enters with the next drafts
            self._batch.watch.lap("draft")

    def take(self, keep: Ints, other: Drafter | None = None) -> None:
        """Do nothing: all that this drafter keeps is in the session and the state."""
