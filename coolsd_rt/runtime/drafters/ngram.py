"""Drafts that repeat: what followed the last tokens the time before, in the prompt or the decided tokens.

There is no draft model, and no step is taken. Each draft is certain, so its Q is a point mass: a draft x is accepted
with probability min(1, omega P(x)). Where no n-gram of the last tokens was there before, an image has no drafts in this
round. Tokens and their number depend on what was decided before the round, never on a draw of it.

Knows sequences of ids. Does not know what a token means, or how drafts are verified. Source: prompt lookup decoding.
Legend as in `coolsd_rt.runtime.round`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.law.arrays import namespace
from coolsd_rt.runtime.batch import Batch, Window
from coolsd_rt.runtime.mates import mates
from coolsd_rt.runtime.ngrams import Lookup, NgramIndex

if TYPE_CHECKING:
    from coolsd_rt.runtime.drafters import Drafter


class NgramDrafter:
    """Keeps an index of each image's tokens, which catches up with the decided ones when drafts are asked for."""

    def __init__(self, batch: Batch, lookup: Lookup) -> None:
        """lookup: its prompts are those of the batch, in order."""
        self._batch = batch
        prompts = lookup.prompts or ((),) * len(batch.rows)
        self._indices = [NgramIndex(lookup.sizes, prompt) for prompt in prompts]
        self._like: Array = None  # [M, 0, V], of the kind that P has

    def prefill(self, features: Array) -> None:
        """Do nothing: this drafter uses tokens only."""

    def draft(self, window: Window, num_drafts: Ints) -> tuple[Ints, Array, Array]:
        """Return the tokens that followed the time before, and point masses as their Q."""
        batch, state = self._batch, self._batch.state
        num_drafts = num_drafts.copy()
        batch.watch.lap("other")
        found: list[list[int]] = [[] for _ in self._indices]
        for m in np.flatnonzero(num_drafts).tolist():
            index, count = self._indices[m], int(num_drafts[m])
            index.extend(state.codes[m, index.decided : state.committed[m] - state.prefix].tolist())
            forced = () if batch.forced is None else batch.forced[window.at[m, :count]].tolist()
            found[m] = index.propose(count, forced)
            num_drafts[m] = len(found[m])
        most = max(len(one) for one in found)
        tokens = np.array([one + [0] * (most - len(one)) for one in found], np.int64)
        batch.watch.lap("draft")
        return num_drafts, *self._certain(tokens.reshape(len(found), most))

    def _certain(self, tokens: Ints) -> tuple[Array, Array]:
        """Return tokens [M, l] as an array of the session, and their point masses [M, l, V]."""
        like = self._like
        xp, shape = namespace(like), (*tokens.shape, like.shape[-1])
        there = self._batch.put(tokens)
        q = xp.zeros(shape, dtype=like.dtype, device=like.device)
        rows, columns = self._batch.rows[:, None], np.arange(shape[1])
        q[self._batch.put(rows), self._batch.put(columns), there] = 1.0
        return there, q

    def seen(self, features: Array) -> None:
        """Do nothing: this drafter uses tokens only."""

    def evaluated(self, p: Array, q: Array, drafts: Array, accepted: Ints, num_drafts: Ints, window: Window) -> None:
        """Note the kind of array that P is. The next drafts come from the decided tokens."""
        self._like = p[:, :0]

    def committed(self, active: Host) -> None:
        """Do nothing: the index catches up with the next drafts."""

    def take(self, keep: Ints, other: Drafter | None = None) -> None:
        """Keep the indices of these images."""
        every = [index for drafter in mates(self, other) for index in drafter._indices]
        self._indices = [every[m] for m in keep.tolist()]
