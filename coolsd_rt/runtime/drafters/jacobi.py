"""Drafts without a draft model: the target's own distributions of the last round, beyond its first rejection.

Speculative Jacobi decoding. A round gives P at every window index, computed after drafts that were partly wrong. Beyond
the rejection these P serve as the next round's Q, and tokens are drawn from them; what the window gains at its end is
drawn from the last of them. The next round's P follows drafts that are better by one iteration.

Coupled: a draft beyond the rejection is not drawn again but passed on from its old law Q to the new one, P, by the
lossless rule itself (accepted with min(1, P / Q), else drawn from the residual). Its law is P either way; but tokens
stay where laws agree, so that the contexts of later ones settle sooner.

Why the law of the output stays: a draft's law is fixed by tokens before it, of this round and earlier ones, and its
random numbers are its own. So given all that came before it in the window, in every iteration, it has the law Q that
the verdict divides by, and the proof for one position applies. Source: SJD (arXiv 2410.01699); the coupling is the
maximal one. Legend as in `coolsd_rt.runtime.round`.
"""

from __future__ import annotations

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.law.acceptance import accepts
from coolsd_rt.law.arrays import namespace
from coolsd_rt.law.residual import residual
from coolsd_rt.ops import sample
from coolsd_rt.runtime.batch import Batch, Window
from coolsd_rt.runtime.randomness import ACCEPT, DRAFT, RESAMPLE


class JacobiDrafter:
    """Keeps the last round's P, and how far into it each image's next window begins."""

    def __init__(self, batch: Batch, coupled: bool) -> None:
        self._batch, self._coupled = batch, coupled
        self._probs: Array = None  # P of the last round [M, L' + 1, V]; after the prefill, that of the first token
        self._moved: Array | None = None  # its drafts, passed on to P [M, L']; coupled only
        self._start = np.zeros(len(batch.rows), np.int64)  # its window index that is the next window's first
        self._end = np.zeros(len(batch.rows), np.int64)  # its last window index that was evaluated, or could have been

    def prefill(self, features: Array) -> None:
        """Nothing: it reads distributions alone."""

    def draft(self, window: Window, count: int) -> tuple[Array, Array]:
        batch = self._batch
        index = self._start[:, None] + np.arange(count)
        old = np.minimum(index, self._end[:, None])
        rows = batch.put(batch.rows)[:, None]
        q = batch.pinned(self._probs[rows, batch.put(old)], window.at[:, :count])
        tokens = sample(q, batch.put(window.uniforms[:, :count, DRAFT]))
        if self._moved is not None:
            stays = batch.put(index < self._end[:, None])
            at = batch.put(np.minimum(old, self._moved.shape[1] - 1))
            tokens = namespace(q).where(stays, self._moved[rows, at], tokens)
        batch.watch.lap("verify")
        return tokens, q

    def seen(self, features: Array) -> None:
        """Nothing: it reads distributions alone."""

    def evaluated(self, p: Array, q: Array, drafts: Array, accepted: Ints, num_drafts: Ints, window: Window) -> None:
        self._probs, self._start, self._end = p, accepted + 1, num_drafts
        coupled = self._coupled and drafts.shape[1] > 0
        self._moved = self._pass_on(p[:, :-1], q, drafts, window) if coupled else None

    def _pass_on(self, p: Array, q: Array, drafts: Array, window: Window) -> Array:
        """Tokens [M, L'] of law P, coupled with `drafts` of law Q; the numbers are those that the verdict left."""
        batch, count = self._batch, drafts.shape[1]
        xp = namespace(p)
        u = batch.put(window.uniforms[:, :count])
        own = drafts[..., None]
        of_p, of_q = (xp.take_along_axis(probs, own, axis=-1)[..., 0] for probs in (p, q))
        is_accepted = accepts(xp.astype(u[..., ACCEPT], xp.float64), of_p, of_q, 1.0)
        weights, _ = residual(p, q, 1.0, "residual")
        return xp.where(is_accepted, drafts, sample(weights, u[..., RESAMPLE]))

    def committed(self, active: Host) -> None:
        """Nothing: there is no cache."""
