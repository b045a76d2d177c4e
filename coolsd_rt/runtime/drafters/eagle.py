"""Drafts of an EAGLE head: a chain of predictions from the target's features at the decided tokens.

Knows the head's cache and which of the target's features the head has not processed. Does not know how drafts are
verified. Source: EAGLE (arXiv 2401.15077). Legend as in `coolsd_rt.runtime.round`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.law.arrays import namespace
from coolsd_rt.ops.logits import MIN_TEMPERATURE
from coolsd_rt.runtime.batch import Batch, Processing, Window, gathered, rows_of
from coolsd_rt.runtime.drafters.chain import chain
from coolsd_rt.runtime.drafters.pending import PendingFeatures
from coolsd_rt.runtime.interface import ProposingSession
from coolsd_rt.runtime.mates import mates
from coolsd_rt.runtime.randomness import DRAFT
from coolsd_rt.runtime.state import CATCH_UP

if TYPE_CHECKING:
    from coolsd_rt.runtime.drafters import Drafter


class EagleDrafter:
    """Drafts with an EAGLE head.

    `drafted <= cached`: the positions between them enter the head in its next step, with the target's features. Cache
    rows made from the head's own features are at or after `drafted` and are overwritten.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch, self._session = batch, batch.session

    def prefill(self, features: Array) -> None:
        """Step the head over the prefix, except for its last position.

        The features of that position enter with the first decided token.
        """
        batch, state, at = self._batch, self._batch.state, 0
        for ids in batch.blanks(features.shape[1] - 1):
            end = at + ids.shape[1]
            self._session.draft(ids, features[:, at:end], batch.rowwise(state.drafted))
            state.drafted, at = state.drafted + end - at, end
            batch.watch.lap("draft")
        self._unseen = PendingFeatures(batch, features[:, -1:])

    def draft(self, window: Window, num_drafts: Ints) -> tuple[Ints, Array, Array]:
        """Draft with the graph `propose` where possible, else in single steps.

        The first step is ragged: in each row it has as many positions as the last round decided tokens, padded to the
        longest row. Cache rows written by padding are overwritten before a mask exposes them.

        The choice between `propose` and single steps depends on each image alone, never on the other images of the
        batch, because the two round differently.
        """
        batch, count = self._batch, int(num_drafts.max())
        step = self._unseen.take(window.active)
        batch.watch.lap("other")
        drawn: tuple[Array, Array] | None = None
        for kind, images in self._ways(window).items():
            found = self._in_steps(window, count, *step) if kind is None else self._at_once(kind, window, count, *step)
            drawn = found if drawn is None else _merged(drawn, found, batch.put(images))
        assert drawn is not None  # at least one image is active
        return num_drafts, *drawn

    def _ways(self, window: Window) -> dict[Processing | None, Host]:
        """Return how the active images are drafted, each with a mask bool [M]: None is in single steps.

        The graph `propose` has one draft length, no top-p and no forced tokens, and takes one setting at a time.
        """
        batch, session = self._batch, self._session
        fits = np.zeros(len(batch.rows), bool)
        if batch.paired and isinstance(session, ProposingSession) and (built := session.propose_length):
            fits = (batch.lengths == built) & np.array([kind.top_p >= 1.0 for kind in batch.kinds])
            if batch.forced is not None:
                fits &= ~(batch.forced[window.at[:, :built]] >= 0).any(axis=1)
        if not fits.any():
            return {None: window.active}
        ways: dict[Processing | None, Host] = {}
        for m in np.flatnonzero(window.active).tolist():
            kind = batch.kinds[m] if fits[m] else None
            if kind not in ways:
                ways[kind] = np.zeros(len(fits), bool)
            ways[kind][m] = True
        return ways

    def _at_once(
        self,
        kind: Processing,
        window: Window,
        count: int,
        ids: Array,
        features: Array,
        pos: Array,
        num_pending: Ints,
    ) -> tuple[Array, Array]:
        """Run all draft steps and their sampling in one graph."""
        batch, session = self._batch, self._session
        assert isinstance(session, ProposingSession)  # `_ways` has asked
        length = session.propose_length
        u = batch.put(window.uniforms[:, :length, DRAFT])
        tokens, q = session.propose(
            ids,
            features,
            pos,
            batch.rowwise(num_pending),
            u,
            window.scale[:, :length],  # type: ignore[index]
            max(kind.temperature, MIN_TEMPERATURE),
            kind.top_k or session.dims.vocab,
        )
        batch.watch.lap("draft")
        return tokens[:, :count], q[:, :count]

    def _in_steps(
        self, window: Window, count: int, ids: Array, features: Array, pos: Array, num_pending: Ints
    ) -> tuple[Array, Array]:
        """Run one graph call per draft."""
        batch, session = self._batch, self._session
        logits, guessed = self._first(ids, features, pos, num_pending)

        def step(i: int, token: Array) -> Array:
            """Step on the head's own features. The next round overwrites the cache rows that this writes."""
            nonlocal guessed
            logits, guessed = session.draft(token, guessed, batch.rowwise(batch.state.cached + i - 1))
            return logits

        return chain(batch, window, count, logits, step)

    def _first(self, ids: Array, features: Array, pos: Array, num_pending: Ints) -> tuple[Array, Array]:
        """Step over what is pending. Returns the logits [R, 1, V] of the first draft, and the guessed feature."""
        batch = self._batch
        logits, guessed = self._session.draft(ids, features, pos)
        if ids.shape[1] > 1:
            last = batch.rowwise(num_pending - 1)
            logits, guessed = logits[batch.row_ids, last][:, None], guessed[batch.row_ids, last][:, None]
        return logits, guessed

    def seen(self, features: Array) -> None:
        """Store the features of the target's step.

        The positions that are committed enter the head with the next draft.
        """
        self._unseen.add(features)

    def evaluated(self, p: Array, q: Array, drafts: Array, accepted: Ints, num_drafts: Ints, window: Window) -> None:
        """Do nothing: the next drafts come from features."""

    def committed(self, active: Host) -> None:
        """Update the head's cache after `CATCH_UP` rounds without a draft, so that its next step stays narrow.

        The last row is left for the next `draft`, which starts from the head's output at that row.
        """
        state = self._batch.state
        if int((state.cached - state.drafted)[active].max()) < CATCH_UP:
            return
        ids, features, pos, num_pending = self._unseen.take(active, spared=1)
        self._session.draft(ids, features, pos)
        self._unseen.leave_one(num_pending)
        self._batch.watch.lap("draft")

    def take(self, keep: Ints, other: Drafter | None = None) -> None:
        """Keep the features of these images."""
        drafters = mates(self, other)
        rows = rows_of(keep, [drafter._batch for drafter in drafters])
        self._unseen.keep(rows, *(drafter._unseen for drafter in drafters[1:]))


def _merged(drawn: tuple[Array, Array], found: tuple[Array, Array], images: Array) -> tuple[Array, Array]:
    """Return drafts and their Q: `found` at `images` bool [M], else `drawn`, both as long as the longer one."""
    xp = namespace(drawn[1])
    longest = max(drawn[0].shape[1], found[0].shape[1])
    every = xp.arange(images.shape[0], dtype=xp.int64, device=images.device)
    blank = [xp.zeros((0, longest, *part.shape[2:]), dtype=part.dtype, device=part.device) for part in drawn]
    (tokens, q), (more, more_q) = (
        [gathered([part, none], every) for part, none in zip(side, blank, strict=True)] for side in (drawn, found)
    )
    return xp.where(images[:, None], more, tokens), xp.where(images[:, None, None], more_q, q)
