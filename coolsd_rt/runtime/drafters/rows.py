"""Drafts of a row head: all tokens to the end of a row in one step, each from decided tokens alone.

Keeps the target's features of the last `row` decided positions, which is all that a round's drafts are guessed from:
column i of them belongs to the token above draft i, the last column to the last decided token. A rejected draft's
feature is never among them. As no draft depends on another one, Q of the round is a product; the chain's verification
compares it with P position by position up to the first rejection, which is lossless for any Q.

Knows the row's length and which features belong to a round. Does not know how drafts are verified. Source: SSD (arXiv
2606.20543). Legend as in `coolsd_rt.runtime.round`; K row, the tokens of a row with its line end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.errors import UserError
from coolsd_rt.law.arrays import namespace
from coolsd_rt.ops import sample
from coolsd_rt.runtime.batch import Batch, Window, gathered, rows_of
from coolsd_rt.runtime.interface import RowDraftSession
from coolsd_rt.runtime.mates import mates
from coolsd_rt.runtime.randomness import DRAFT
from coolsd_rt.runtime.row_lengths import row_lengths

if TYPE_CHECKING:
    from coolsd_rt.runtime.drafters import Drafter


class RowDrafter:
    """Drafts rows with a row head.

    Between rounds `_features` [R, K, C] are those of the positions from cached - K on, up to cached - 1. Those of
    positions before the prefix's last one have no meaning and are never used.
    """

    def __init__(self, batch: Batch) -> None:
        """Raises UserError if the session's engine has no row head."""
        session, self._batch = batch.session, batch
        self._row, self._ahead = session.dims.row, session.dims.ahead
        if not self._row or not isinstance(session, RowDraftSession):
            fix = "name one in the spec (draft: {model: rows}) and build again"
            raise UserError("the drafter rows", expected="an engine with a row head", found="one without", fix=fix)
        self._session: RowDraftSession = session
        self._features: Array = None
        self._step: Array = None  # features of the round's step of the target
        self._cached = batch.state.cached  # before the round

    def prefill(self, features: Array) -> None:
        """Keep the last features of the prefix."""
        self._features = self._last(features, np.full(len(self._batch.rows), features.shape[1]), padded=True)

    def draft(self, window: Window, num_drafts: Ints) -> tuple[Ints, Array, Array]:
        """Draft to the end of each image's row, in one step of the head."""
        batch, state = self._batch, self._batch.state
        begin = state.committed - state.prefix
        num_drafts = np.minimum(num_drafts, row_lengths(begin, self._row, self._ahead))
        count = int(num_drafts.max())
        tokens = np.maximum(begin[:, None] - self._row + np.arange(self._row), 0)
        ids = batch.rowwise(state.codes[batch.rows[:, None], np.minimum(tokens, state.tokens - 1)])
        # Behind the last draft of a whole row comes the pending token, which has no feature yet.
        ends = np.array([min(count, self._row - 1), self._row - 1])
        here, features = batch.put(ends), self._features
        batch.watch.lap("other")
        logits = self._session.draft_row(
            ids[:, :count],
            features[:, :count],
            ids[:, here],
            features[:, here],
            batch.rowwise(np.maximum(self._row - begin, 0)),
        )
        batch.watch.lap("draft")
        q = batch.distribution(logits, window.scale, window.at)
        drafts = sample(q, batch.put(window.uniforms[:, :count, DRAFT]))
        batch.watch.lap("verify")
        return num_drafts, drafts, q

    def seen(self, features: Array) -> None:
        """Store the features of the target's step until it is known which of them are of decided tokens."""
        self._step, self._cached = features, self._batch.state.cached.copy()

    def evaluated(self, p: Array, q: Array, drafts: Array, accepted: Ints, num_drafts: Ints, window: Window) -> None:
        """Do nothing: the next drafts come from features."""

    def committed(self, active: Host) -> None:
        """Keep the features up to the last accepted draft's."""
        xp = namespace(self._step)
        self._features = self._last(
            xp.concat([self._features, self._step], axis=1), self._batch.state.cached - self._cached + self._row
        )

    def _last(self, features: Array, end: Ints, padded: bool = False) -> Array:
        """Return the K features before column `end` [M] of each row. padded: zeros stand before too few of them."""
        batch = self._batch
        if padded:
            xp, (rows, _, dim) = namespace(features), features.shape
            blank = xp.zeros((rows, self._row, dim), dtype=features.dtype, device=features.device)
            features, end = xp.concat([blank, features], axis=1), end + self._row
        columns = batch.rowwise(end[:, None] - self._row + np.arange(self._row))
        return features[batch.row_ids[:, None], columns]

    def take(self, keep: Ints, other: Drafter | None = None) -> None:
        """Keep the features of these images."""
        drafters = mates(self, other)
        rows = rows_of(keep, [drafter._batch for drafter in drafters])
        self._features = gathered([drafter._features for drafter in drafters], self._batch.put(rows))
