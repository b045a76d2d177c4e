"""Speculative Jacobi decoding: drafts from the target's last round after its first rejection, without a draft model.

A round gives P at every window index, computed after drafts that were partly wrong. After the rejection these P serve
as the next round's Q, and its drafts are drawn from them. Window indices beyond the end of the last round use its last
P. The next round's P follows drafts that are better by one iteration.

Coupled: a draft after the rejection is not drawn again but carried over from its old distribution Q to the new one, P,
by the lossless rule (accepted with probability min(1, P / Q), else drawn from the residual). Its distribution is P
either way, but tokens stay the same where the distributions agree, so that the contexts of later tokens converge
sooner.

With noise (Gumbel coupling): a draft is drawn again from its new distribution, with the same noise of its position in
every round: argmax(log Q + noise). It is the same token unless the distributions differ where it matters, and it needs
no token to be carried over.

Why the distribution of the output stays the target's: the distribution of a draft is determined by tokens before it, of
this round and earlier ones, and each draft has random numbers, or a noise, of its position alone. So in every
iteration, given everything before
it in the window, a draft has the distribution Q that the verification divides by, and the proof for one position
applies. Sources: SJD (arXiv 2410.01699); both couplings, SCD (arXiv 2510.24211). Legend as in
`coolsd_rt.runtime.round`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.law.acceptance import accepts
from coolsd_rt.law.arrays import namespace
from coolsd_rt.law.residual import residual
from coolsd_rt.ops import race, sample
from coolsd_rt.runtime.batch import Batch, Window, gathered
from coolsd_rt.runtime.mates import mates
from coolsd_rt.runtime.randomness import ACCEPT, DRAFT, RESAMPLE, exponentials

if TYPE_CHECKING:
    from coolsd_rt.runtime.drafters import Drafter


class PositionNoise:
    """The noise of the positions that each image has drafted and not decided, and of those that follow."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._known: list[dict[int, Array]] = [{} for _ in batch.rows]  # float64 [V] by position, of each image

    def at(self, positions: Ints, vocab: int) -> Array:
        """Return the noise of image tokens `positions` [M, l], float64 [M, l, V]. Positions before the first of an
        image are decided, and forgotten."""
        noise = []
        for m, row in enumerate(positions.tolist()):
            known = {position: one for position, one in self._known[m].items() if position >= row[0]}
            for position in row:
                if position not in known:
                    first, second = self._batch.uniforms[m, position, :2, DRAFT].tolist()
                    known[position] = self._batch.put(exponentials(first, second, vocab))
            self._known[m] = known
            noise += [known[position] for position in row]
        return namespace(noise[0]).stack(noise).reshape(*positions.shape, vocab)

    def take(self, keep: Ints, others: Sequence[PositionNoise]) -> None:
        """Keep the noise of the images `keep` of `others`, counted on from one to the next."""
        known = [one for other in others for one in other._known]
        self._known = [known[m] for m in keep.tolist()]


class JacobiDrafter:
    """Stores the P of the last round, and the index in it at which each image's next window begins."""

    def __init__(self, batch: Batch, coupled: bool = False, noise: bool = False) -> None:
        """coupled, noise: at most one of them; see above."""
        self._batch, self._coupled = batch, coupled
        self._noise = PositionNoise(batch) if noise else None
        self._probs: Array = None  # P of the last round [M, L' + 1, V]; after the prefill, P of the first token
        self._moved: Array | None = None  # drafts of that round carried over to P [M, L']; coupled only
        self._start = np.zeros(len(batch.rows), np.int64)  # index in that round of the next window's start
        self._end = np.zeros(len(batch.rows), np.int64)  # last index in that round that could be evaluated

    def prefill(self, features: Array) -> None:
        """Do nothing: this drafter uses distributions only."""

    def draft(self, window: Window, num_drafts: Ints) -> tuple[Ints, Array, Array]:
        """Return drafts from the last round's P; coupled, tokens that were carried over are kept, and with noise the
        tokens that win their position's race."""
        batch, count = self._batch, int(num_drafts.max())
        index = self._start[:, None] + np.arange(count)
        old = np.minimum(index, self._end[:, None])
        rows = batch.put(batch.rows)[:, None]
        q = batch.pinned(self._probs[rows, batch.put(old)], window.at[:, :count])
        if self._noise is None:
            tokens = sample(q, batch.put(window.uniforms[:, :count, DRAFT]))
        else:
            tokens = race(q, self._noise.at(window.at[:, :count], q.shape[-1]))
        if self._moved is not None:
            stays = batch.put(index < self._end[:, None])
            at = batch.put(np.minimum(old, self._moved.shape[1] - 1))
            tokens = namespace(q).where(stays, self._moved[rows, at], tokens)
        batch.watch.lap("verify")
        return num_drafts, tokens, q

    def seen(self, features: Array) -> None:
        """Do nothing: this drafter uses distributions only."""

    def evaluated(self, p: Array, q: Array, drafts: Array, accepted: Ints, num_drafts: Ints, window: Window) -> None:
        """Store P and the start of the next window; coupled, carry the drafts over from Q to P."""
        self._probs, self._start, self._end = p, accepted + 1, num_drafts
        coupled = self._coupled and drafts.shape[1] > 0
        self._moved = self._pass_on(p[:, :-1], q, drafts, window) if coupled else None

    def _pass_on(self, p: Array, q: Array, drafts: Array, window: Window) -> Array:
        """Return tokens [M, L'] distributed as P, coupled with `drafts` distributed as Q.

        Uses the uniforms of the accept and resample purposes, which the verification does not use after the first
        rejection.
        """
        batch, count = self._batch, drafts.shape[1]
        xp = namespace(p)
        u = batch.put(window.uniforms[:, :count])
        own = drafts[..., None]
        of_p, of_q = (xp.take_along_axis(probs, own, axis=-1)[..., 0] for probs in (p, q))
        is_accepted = accepts(xp.astype(u[..., ACCEPT], xp.float64), of_p, of_q, 1.0)
        weights, _ = residual(p, q, 1.0, "residual")
        return xp.where(is_accepted, drafts, sample(weights, u[..., RESAMPLE]))

    def committed(self, active: Host) -> None:
        """Do nothing: this drafter has no cache."""

    def take(self, keep: Ints, other: Drafter | None = None) -> None:
        """Keep the distributions of these images. Those of a shorter round are padded; `_end` bounds what is read."""
        drafters = mates(self, other)
        index = self._batch.put(keep)
        self._probs = gathered([drafter._probs for drafter in drafters], index)
        self._start = np.concatenate([drafter._start for drafter in drafters])[keep]
        self._end = np.concatenate([drafter._end for drafter in drafters])[keep]
        if self._noise is not None:
            self._noise.take(keep, [drafter._noise for drafter in drafters if drafter._noise is not None])
        moved = [drafter._moved for drafter in drafters]
        if self._coupled and any(part is not None for part in moved):
            blank = [self._batch.put(np.zeros((len(drafter._batch.rows), 1), np.int64)) for drafter in drafters]
            self._moved = gathered([b if part is None else part for part, b in zip(moved, blank, strict=True)], index)
