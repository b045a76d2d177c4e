"""The loop over a batch whose images may change: the code of one round, and how images leave and join between rounds.

Images that step together share the rule, the resampler, the drafter and the shape of its drafts. Omegas, draft length,
sampling settings and random numbers are each image's own.

Knows sessions, the law's operations and a drafter. Does not know which image of a request an image is, when a batch is
done, who receives its tokens, nor what a token looks like. The counters, their invariants and the steps of a round are
described in `runtime.round`, whose legend holds here too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Tolerance
from coolsd_rt.law.arrays import namespace
from coolsd_rt.ops import sample, verify
from coolsd_rt.runtime.batch import Batch, Judged, Window, gathered, rows_of, to_host
from coolsd_rt.runtime.drafters import Drafter, make_drafter
from coolsd_rt.runtime.interface import RowSession, Session
from coolsd_rt.runtime.mates import mates
from coolsd_rt.runtime.randomness import ACCEPT, RESAMPLE
from coolsd_rt.runtime.self_decoding import DecodeRequest
from coolsd_rt.runtime.state import RoundRecord, State
from coolsd_rt.runtime.statistics import Stopwatch

if TYPE_CHECKING:
    from coolsd_rt.runtime.position_round import PositionJudge
    from coolsd_rt.runtime.tree_round import TreeJudge


def check_length(law: Law, session: Session) -> None:
    """Raise UserError unless the drafts of a round fit into the image."""
    tokens = session.dims.tokens
    if law.length > tokens:
        raise UserError("the draft length", expected=f"at most the image's {tokens}", found=str(law.length))


class DecodingLoop:
    """The host's loop: the prefill, then one `round` at a time of all images. Between rounds images leave and join."""

    def __init__(self, session: Session, request: DecodeRequest, watch: Stopwatch | None = None) -> None:
        """session: must be fresh. watch: times the phases; loops that take turns share one.

        Raises UserError if drafts exceed the image, or cannot be a tree here.
        """
        check_length(request.law, session)
        law, images = request.law, len(request.uniforms)
        watch = watch or Stopwatch(request.clock)
        state = State.empty(images, session.dims, request.extent.ends, request.extent.limits)
        self.batch = Batch(session, request.sampling, request.uniforms, request.forced, watch, state, request.tree)
        self.state, self._first = state, request.extent.first
        self._session, self._law = session, law
        self._omegas = np.tile(np.asarray(law.omegas, np.float64), (images, 1))  # [M, L]; those of the longest image
        self._trees: TreeJudge | None = None
        self._drafter: Drafter | None = None
        if request.tree is not None:
            from coolsd_rt.runtime.tree_round import TreeJudge, check_tree  # a start does not pay for what it lacks

            self._trees = TreeJudge(check_tree(request, session), self.batch, request.tree)
            self._drafter = self._trees.drafter
        elif request.length:
            self._drafter = make_drafter(request.drafter, self.batch, request.lookup)
        self._positions: PositionJudge | None = None
        if law.refinements is not None and self._drafter is not None:
            from coolsd_rt.runtime.position_round import PositionJudge, check_positions  # as above

            passes = check_positions(request)
            self._positions = PositionJudge(self.batch, passes, self._target_of_images, self._drafter)
        self._tolerance: Tolerance | None = None  # the law's tolerance with its rates as arrays of the session
        self._rates: Array | None = None

    def prefill(self) -> None:
        """Run the prefix through target and draft, and draw image token 0 from P at position W - 1.

        Positions before the first one of any row hold nothing but padding, which no later position attends to.
        """
        state, batch, width = self.state, self.batch, self.state.prefix - self._first
        images = len(batch.rows)
        for counter in (state.committed, state.cached, state.drafted):
            counter += self._first
        parts: list[Array] = []
        for ids in batch.blanks(width):
            logits, features = self._target(ids)
            state.cached += ids.shape[1]
            # A session may write the next step's features where these are.
            whole = ids.shape[1] == width
            parts.append(features if whole else namespace(features).asarray(features, copy=True))
        self._xp = namespace(logits)
        features = parts[0] if len(parts) == 1 else self._xp.concat(parts, axis=1)
        self._prepare_law(logits.device)
        if self._drafter:
            self._drafter.prefill(features)
        at = np.zeros((images, 1), np.int64)
        p = batch.distribution(logits[:, -1:], batch.scale(at), at)
        token = to_host(sample(p[:, 0], batch.put(batch.uniforms[:, 0, 0, RESAMPLE])))
        state.codes[:, 0] = token
        state.committed += width + 1
        state.complete(token, np.ones(images, bool))
        none = np.zeros(images, np.int64)
        self._draft_allowed = self._confident(p, none)
        self._no_drafts = (self._xp.astype(p[:, :0, 0], self._xp.int64), p[:, :0])
        if self._drafter:
            self._drafter.evaluated(p, p[:, :0], self._no_drafts[0], none, none, batch.window(none == 0))
        batch.watch.lap("verify")

    def round(self) -> RoundRecord:
        """Run one round of every unfinished image. Returns a record of it."""
        state, batch, drafter = self.state, self.batch, self._drafter
        # 1. Window. Near the image's end there are fewer drafts; omega keeps its index.
        remaining = state.remaining
        active = remaining > 0
        batch.idle = None if active.all() else batch.put(~active)
        window = batch.window(active)
        num_drafts = np.where(self._draft_allowed, np.minimum(np.maximum(remaining - 1, 0), batch.lengths), 0)

        # 2. Draft. 3. Target. 4. Verify.
        pending = batch.put(state.codes[batch.rows, state.committed - state.prefix - 1][:, None])
        if self._trees is not None and num_drafts.any():
            judged = self._trees.judge(window, num_drafts, pending, self._omegas_there)
        else:
            judged = self._judge_chain(window, num_drafts, pending)
        num_drafts, drafts, p, q = judged[:4]
        accepted, proposed = to_host(judged.accepted), to_host(drafts)
        tokens = np.concatenate([proposed, np.zeros_like(num_drafts)[:, None]], axis=1)
        tokens[batch.rows, accepted] = to_host(judged.token)
        whole, offered, accepted = accepted, num_drafts, state.cut(tokens, accepted)
        num_drafts = np.where(accepted < whole, accepted, num_drafts)  # an end token is no draft that was rejected
        self._draft_allowed = self._confident(p, accepted)
        if drafter:
            drafter.evaluated(p, q, drafts, accepted, num_drafts, window)
        batch.watch.lap("verify")

        # 5. Commit.
        state.commit(tokens, accepted, active)
        if drafter:
            drafter.committed(active)
        degenerate = to_host(judged.degenerate)
        told = (active, offered, num_drafts, accepted, degenerate, proposed, tokens, p, q)
        return RoundRecord(*told, judged.steps, judged.distance)

    def _judge_chain(self, window: Window, num_drafts: Ints, pending: Array) -> Judged:
        """Draft a chain and verify it. pending: int64 [M, 1]."""
        batch = self.batch
        num_drafts, drafts, q = self._draft(window, num_drafts)
        count = drafts.shape[1]
        if self._positions is not None and count:
            return self._positions.judge(window, num_drafts, pending, drafts, q)
        logits, features = self._target_of_images(self._xp.concat([pending, drafts], axis=1))
        if self._drafter:
            self._drafter.seen(features)
        p = batch.distribution(logits, window.scale, window.at)
        verdict = verify(
            p,
            q,
            drafts,
            batch.put(num_drafts),
            self._omegas_there[:, :count],
            batch.put(window.uniforms[:, :count, ACCEPT]),
            batch.put(window.uniforms[..., RESAMPLE]),
            self._law.resampler,
            batch.forced_mask(window.at[:, :count]),
            self._tolerance,
            None if self._rates is None else self._rates[:count],
        )
        return Judged(num_drafts, drafts, p, q, *verdict)

    @property
    def changes(self) -> bool:
        """Whether images can leave and join: the session can drop rows and take in those of another one."""
        return isinstance(self._session, RowSession)

    def take(self, keep: Ints, other: DecodingLoop | None = None) -> None:
        """Keep the images `keep` int64 of this loop and, counted on from its last, of `other`, in this order.

        Called between rounds; the tokens of images that leave have to be read before. other: a loop after its prefill,
        of the same rule, resampler, drafter and tree, on a session of the same engine. It is not used any more.
        """
        if not isinstance(self._session, RowSession):
            raise TypeError(f"expected a session whose rows may change, found {type(self._session).__name__}")
        loops = mates(self, other)
        if len({loop.batch.tree for loop in loops}) > 1:
            raise ValueError("images whose drafts are trees of different shapes cannot share a step")
        self._session.take(rows_of(keep, [loop.batch for loop in loops]), None if other is None else other._session)
        index = self.batch.put(keep)
        if self._drafter is not None:
            self._drafter.take(keep, None if other is None else other._drafter)
        longest = max(loop._omegas.shape[1] for loop in loops)
        padded = [np.pad(loop._omegas, ((0, 0), (0, longest - loop._omegas.shape[1]))) for loop in loops]
        self._omegas = np.concatenate(padded)[keep]
        self._omegas_there = self._put_omegas()
        self.batch.take(keep, None if other is None else other.batch)
        self._draft_allowed = np.concatenate([loop._draft_allowed for loop in loops])[keep]
        tokens, q = ([loop._no_drafts[part] for loop in loops] for part in (0, 1))
        self._no_drafts = gathered(tokens, index), gathered(q, index)

    def drop_drafts(self) -> None:
        """Draw all images without drafts from the next round on. Called between rounds, after the prefill.

        Whether and when must not depend on the tokens or the drafts of these images, or their law would be another.
        """
        self._drafter = self._trees = self._positions = None
        self.batch.drop_drafts()
        self._omegas = self._omegas[:, :0]
        self._omegas_there = self._put_omegas()

    def _draft(self, window: Window, num_drafts: Ints) -> tuple[Ints, Array, Array]:
        """Return how many drafts count [M], and the longest image's number of them: tokens [M, l], Q [M, l, V]."""
        if self._drafter is None or not num_drafts.any():
            return num_drafts, *self._no_drafts
        num_drafts, drafts, q = self._drafter.draft(window, num_drafts)
        least, count = self.batch.draft_confidence, int(num_drafts.max())
        if count and least.any():
            # Q_i depends on the drafts before it alone, so that no token is favoured where it ends the window.
            most = to_host(self._xp.max(q, axis=-1))
            unsure = most < least.astype(most.dtype)[:, None]
            run = np.where(unsure.any(axis=1), unsure.argmax(axis=1), count)
            num_drafts = np.minimum(num_drafts, run)
            count = int(num_drafts.max())
            self.batch.watch.lap("verify")
        return num_drafts, drafts[:, :count], q[:, :count]

    def _prepare_law(self, device: Array) -> None:
        """Convert the law's numbers to arrays of the session."""
        xp, law, batch = self._xp, self._law, self.batch
        self._device = device
        self._omegas_there = self._put_omegas()
        if law.tolerance is not None:
            self._tolerance = replace(law.tolerance, near=batch.put(np.asarray(law.tolerance.near, np.int64)))
        if law.rates is not None:
            self._rates = xp.asarray(law.rates, dtype=xp.float64, device=device)

    def _confident(self, p: Array, at: Ints) -> Host:
        """Return bool [M]: whether the next round may draft, by the top probability of P at window index `at`."""
        rows, least = self.batch.rows, self.batch.confidence
        if not least.any():
            return np.ones(len(rows), bool)
        most = to_host(self._xp.max(p[rows, at], axis=-1))
        return most >= least.astype(most.dtype)

    def _put_omegas(self) -> Array:
        """Return the omegas as an array of the session, float64 [M, L]."""
        return self._xp.asarray(self._omegas, dtype=self._xp.float64, device=self._device)

    def _target_of_images(self, ids: Array) -> tuple[Array, Array]:
        """Run the target's step over ids [M, S] in both rows of each image."""
        return self._target(self.batch.both(ids))

    def _target(self, ids: Array) -> tuple[Array, Array]:
        """Run the target's step at `cached`: logits [R, S, V] and features [R, S, C]."""
        batch = self.batch
        pos = batch.rowwise(self.state.cached)
        batch.watch.lap("other")
        out = self._session.target(ids, pos)
        batch.watch.lap("target")
        return out
