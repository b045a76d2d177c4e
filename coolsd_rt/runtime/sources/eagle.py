"""Drafts of an EAGLE head: a chain of guesses, from the target's own features at the decided tokens.

Knows the head's cache and what of the target it has not seen. Does not know how drafts are judged.
Source: EAGLE (arXiv 2401.15077). Legend as in `coolsd_rt.runtime.round`.
"""

from __future__ import annotations

import numpy as np

from coolsd_rt.ops.logits import MIN_TEMPERATURE
from coolsd_rt.runtime.batch import Array, Batch, Window
from coolsd_rt.runtime.randomness import DRAFT
from coolsd_rt.runtime.sources.chain import chain
from coolsd_rt.runtime.sources.unseen import Unseen
from coolsd_rt.runtime.state import CATCH_UP, Host, Ints


class EagleSource:
    """`drafted <= cached`: the rows between enter the head in its next step, with real features. What the head makes
    of its own guesses lies beyond `drafted` and is overwritten."""

    def __init__(self, batch: Batch) -> None:
        self._batch, self._session = batch, batch.session
        sampling = batch.sampling
        fits = self._session.fused_length == batch.length and sampling.top_p >= 1.0 and batch.paired
        self._fused = fits and batch.length > 0

    def prefill(self, features: Array) -> None:
        batch, state = self._batch, self._batch.state
        width = state.prefix
        if width > 1:
            blank = np.zeros((len(batch.rows), width - 1), np.int64)
            self._session.draft(batch.rowwise(blank), features[:, :-1], batch.rowwise(state.drafted))
            state.drafted += width - 1
            batch.watch.lap("draft")
        self._unseen = Unseen(state, batch.rowwise, batch.row_ids, features[:, -1:])

    def draft(self, window: Window, count: int) -> tuple[Array, Array]:
        """The first step is ragged: as many rows as the last round decided tokens, padded to the longest. What the
        padding writes is overwritten before a mask shows it."""
        batch, session = self._batch, self._session
        ids, features, pos, fresh = self._unseen.take(window.active)
        width = ids.shape[1]
        batch.watch.lap("other")
        if self._fused and batch.forced_mask(window.at[:, :count]) is None:
            s = batch.sampling
            u = batch.put(window.uniforms[..., DRAFT])
            tokens, q = session.propose(
                ids, features, pos, batch.rowwise(fresh), u[:, :-1], window.scale[:, :-1],  # type: ignore[index]
                max(s.temperature, MIN_TEMPERATURE), s.top_k or session.dims.vocab,
            )  # fmt: skip
            batch.watch.lap("draft")
            return tokens[:, :count], q[:, :count]

        logits, guessed = session.draft(ids, features, pos)
        if width > 1:
            last = batch.rowwise(fresh - 1)
            logits, guessed = logits[batch.row_ids, last][:, None], guessed[batch.row_ids, last][:, None]

        def step(i: int, token: Array) -> Array:
            """On the head's own features, in cache rows that the next round overwrites."""
            nonlocal guessed
            logits, guessed = session.draft(token, guessed, batch.rowwise(batch.state.cached + i - 1))
            return logits

        return chain(batch, window, count, logits, step)

    def seen(self, features: Array) -> None:
        self._unseen.add(features)

    def judged(self, p: Array, q: Array, drafts: Array, accepted: Ints, valid: Ints, window: Window) -> None:
        """Nothing: the next drafts come from features."""

    def committed(self, active: Host) -> None:
        """After many rounds without a draft its cache follows, so that its next step stays narrow. The last row is
        left: the next drafts start from what the head makes of it."""
        state = self._batch.state
        if int((state.cached - state.drafted)[active].max()) < CATCH_UP:
            return
        ids, features, pos, fresh = self._unseen.take(active, spared=1)
        self._session.draft(ids, features, pos)
        self._unseen.leave_one(fresh)
        self._batch.watch.lap("draft")
