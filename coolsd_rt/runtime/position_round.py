"""Rounds whose drafts are judged position by position: steps 3 and 4 of `coolsd_rt.runtime.round` (SSD's relaxed mode).

Each of `refinements` passes of the target judges all drafts, after the drafts as they were, and replaces those that it
rejects. The last pass runs over the tokens as they are then: so its cache rows and features belong to them, and its
last position gives the token behind them. All of a round's drafts become tokens. If a pass replaces nothing, it is the
last one, since it has run over these tokens already and every further one would accept them all. A step runs for all
images of a batch: passes go on while any of them has something to replace.

The law: a token is drawn from P after the guesses before it, and these may have been replaced at the same time. Given
the guesses before it, it is independent of the tokens before it. So the joint law of a window is at most

    sum over its positions of E TV(P after the guesses, P after the tokens)

away from the target's in total variation, by the chain rule. Both P are there in every round: their distance is counted
(`RoundRecord.distance`), and its mean is an unbiased estimate of the bound. Without a pass Q takes the place of the
first P. As many passes as there are drafts are lossless. The exact law: `coolsd_rt.law.rivals.PositionWise`.

Knows the law's operations and a batch. Does not know where drafts come from. Legend as in `coolsd_rt.runtime.round`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from coolsd_rt.arrays import Array, Ints
from coolsd_rt.errors import UserError
from coolsd_rt.law.arrays import namespace
from coolsd_rt.ops import sample
from coolsd_rt.ops.positions import judge_positions
from coolsd_rt.runtime.batch import Batch, Judged, Window, to_host
from coolsd_rt.runtime.randomness import ACCEPT, PASS, RESAMPLE
from coolsd_rt.runtime.self_decoding import DecodeRequest

if TYPE_CHECKING:
    from coolsd_rt.runtime.drafters import Drafter

Step = Callable[[Array], tuple[Array, Array]]
"""The target's step over ids int64 [M, S] at `cached`: logits [R, S, V], features [R, S, C]."""


def check_positions(request: DecodeRequest) -> int:
    """Return the passes of a request with the rule per_position. Raises UserError for drafts of another kind."""
    passes = request.law.refinements
    assert passes is not None
    if request.drafter != "rows":
        fix = "use a spec with draft: {model: rows}, or another rule"
        raise UserError("the drafter of the rule per_position", expected="rows", found=request.drafter, fix=fix)
    return passes


class PositionJudge:
    """Judges drafts position by position."""

    def __init__(self, batch: Batch, refinements: int, step: Step, drafter: Drafter) -> None:
        self._batch, self._refinements, self._step, self._drafter = batch, refinements, step, drafter

    def judge(self, window: Window, num_drafts: Ints, pending: Array, drafts: Array, q: Array) -> Judged:
        """Run a round from its drafts up to its commit.

        num_drafts: [M]. pending: int64 [M, 1]. drafts: int64 [M, L']. q: [M, L', V].

        `draft` of what is returned is the law that the tokens were drawn from.
        """
        batch, xp, count = self._batch, namespace(pending), drafts.shape[1]
        at, numbers = window.at[:, :count], window.uniforms
        tokens, law, put = drafts, q, batch.put
        degenerate = batch.put(np.zeros(len(num_drafts), bool))
        p, features = self._run(window, pending, tokens)
        steps = 1
        for k in range(self._refinements):
            new, empty = judge_positions(
                p[:, :count], law, tokens, put(num_drafts),
                put(numbers[:, :count, ACCEPT + PASS * k]), put(numbers[:, :count, RESAMPLE + PASS * k]),
                batch.forced_mask(at),
            )  # fmt: skip
            law, degenerate = p[:, :count], degenerate | empty
            if not bool(xp.any(new != tokens)):
                break
            tokens = new
            batch.watch.lap("verify")
            p, features = self._run(window, pending, tokens)
            steps += 1
        self._drafter.seen(features)
        accepted = put(num_drafts)
        token = sample(p[put(batch.rows), accepted], put(numbers[batch.rows, num_drafts, RESAMPLE]))
        apart = 0.5 * xp.sum(xp.abs(xp.astype(p[:, :count] - law, xp.float64)), axis=-1)
        counts = xp.arange(count, dtype=xp.int64, device=accepted.device) < accepted[:, None]
        distance = to_host(xp.sum(apart * xp.astype(counts, xp.float64), axis=1))
        return Judged(num_drafts, tokens, p, law, accepted, token, degenerate, steps, distance)

    def _run(self, window: Window, pending: Array, tokens: Array) -> tuple[Array, Array]:
        """Return P [M, L' + 1, V] and the features of the target's step over [pending, tokens]."""
        logits, features = self._step(namespace(pending).concat([pending, tokens], axis=1))
        return self._batch.distribution(logits, window.scale, window.at), features
