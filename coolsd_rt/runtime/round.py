"""The round: draft, verify, commit, until every image is complete.

Runs any `Session` (ONNX Runtime, eager PyTorch, a ten-line fake) for M images at once, with drafts of any drafter in
`coolsd_rt.runtime.drafters`. Does not know which backend runs the steps, where prompts come from, or what a code looks
like. The probabilities are defined in `coolsd_rt.law`, the tensor operations in `coolsd_rt.ops`, the random numbers in
`coolsd_rt.runtime.randomness`.

Legend: M images, R rows (2M under CFG, all conditional first; M if every scale is 1), W prefix length, N image tokens,
L draft length, V codes. Positions count the prefix. Window index i counts from the first undecided token.

Authoritative state (`State`, host integers per image; everything else is derived or temporary):

| counter   | meaning                                                                          |
|-----------|----------------------------------------------------------------------------------|
| committed | positions whose token is decided                                                 |
| cached    | positions in the target's KV cache; their features are known                     |
| drafted   | rows of the draft's KV cache made from decided tokens; each drafter defines a row |

Invariants between rounds:
- `cached == committed - 1`: the last decided token is pending; it enters the target in the next step.
- `drafted <= committed`, and the rows between enter the draft in the next round's first step.
- Stale cache rows (rejected drafts, rows made from guesses) are at or after `cached`, or `drafted`. The mask hides rows
  after a step's positions, and writing at `cached` overwrites them: rollback only sets an integer.

One round:
1. Window: the number of drafts that each image can still use, its uniforms, CFG scales and forced tokens.
   There are none where the target was less sure of its last token than `sampling.confidence`.
2. Draft: d_1..d_l, each drawn from its Q. Those from the first Q on that is less sure than `sampling.draft_confidence`
   do not count.
3. Target: one step over [pending, d_1..d_L] gives P_1..P_{L+1}, by the same processing as Q.
4. Verify: accept drafts up to the first rejection; resample there, or draw the bonus token.
5. Commit: decide the tokens, advance the counters, update the statistics.

A finished image stays in the batch until the last one is finished: its rows are stepped, and the results are discarded.
Draft length 0 is plain decoding: the same code without a draft.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Tolerance
from coolsd_rt.law.arrays import namespace
from coolsd_rt.ops import sample, verify
from coolsd_rt.runtime.batch import Batch, Window, to_host
from coolsd_rt.runtime.drafters import DrafterName, make_drafter
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.progress import OnProgress, Progress
from coolsd_rt.runtime.randomness import ACCEPT, RESAMPLE, uniform_table
from coolsd_rt.runtime.sampling import Sampling, forced_ids
from coolsd_rt.runtime.self_decoding import DecodeRequest, SelfDecodingSession
from coolsd_rt.runtime.state import RoundRecord, State
from coolsd_rt.runtime.statistics import Generation

OnRound = Callable[[State, RoundRecord], None]  # called after the commit
Loop = Literal["auto", "host", "device"]
"""Which loop to run. auto: the session's own loop if it supports the request, else the host's."""


@dataclass(frozen=True)
class LoopHooks:
    """Callbacks of a loop.

    Attributes:
        on_progress: called after rounds, as often as the loop learns of them.
        on_round: called after every round with its P and Q; only the host's loop supports it.
        clock: returns seconds, for the statistics.
    """

    on_progress: OnProgress | None = None
    on_round: OnRound | None = None
    clock: Callable[[], float] = time.perf_counter


NO_HOOKS = LoopHooks()


def generate(
    session: Session,
    law: Law,
    sampling: Sampling,
    seeds: Sequence[int],
    forced: Sequence[int] | Ints | None = None,
    *,
    drafter: DrafterName = "eagle",
    loop: Loop = "auto",
    hooks: LoopHooks = NO_HOOKS,
) -> Generation:
    """Draw one image per seed on a fresh session for that number of images.

    The session needs 2 rows per image if `sampling.guided`, else 1, and `state.capacity` positions.

    forced: int [N], the token that position n must have (such as a line end), or -1. drafter: the source of drafts; the
    session's draft must be of that kind. loop: the loop to run; tokens are the same on either.

    Raises:
        UserError: the draft length exceeds the image, a seed is invalid, the forced or scale list does not fit, or
            loop="device" and the session cannot run the request by itself.
        ValueError: hooks.on_round without loop="host".
    """
    table = uniform_table(seeds, session.dims.tokens, law.length)
    return decode(session, law, sampling, table, forced, drafter=drafter, loop=loop, hooks=hooks)


def decode(
    session: Session,
    law: Law,
    sampling: Sampling,
    uniforms: Host,
    forced: Sequence[int] | Ints | None = None,
    *,
    drafter: DrafterName = "eagle",
    loop: Loop = "auto",
    hooks: LoopHooks = NO_HOOKS,
) -> Generation:
    """Do the work of `generate` with given random numbers.

    uniforms: [M, N, L + 1, 3] as `uniform_table` lays them out.
    """
    _check_hooks(loop, hooks.on_round)
    check_length(law, session)
    ids = forced_ids(forced, session.dims.tokens, session.dims.vocab)
    request = DecodeRequest(law, sampling, uniforms, ids, drafter, hooks.on_progress, hooks.clock)
    if loop != "host":
        if isinstance(session, SelfDecodingSession) and not (reason := session.refusal_reason(request)):
            return session.decode(request)
        if loop == "device":
            found = reason if isinstance(session, SelfDecodingSession) else "an engine that the host steps"
            fix = 'use loop="auto" or loop="host"'
            wanted = "an engine and a request with a loop of their own"
            raise UserError('loop="device"', expected=wanted, found=found, fix=fix)
    decoder = DecodingLoop(session, request)
    decoder.prefill()
    state, statistics = decoder.state, decoder.statistics
    while state.remaining.any():
        began = hooks.clock()
        record = decoder.round()
        statistics.time_round(int(record.num_drafts[record.active].max()), hooks.clock() - began)
        if hooks.on_round is not None:
            hooks.on_round(state, record)
        if hooks.on_progress is not None:
            done = state.committed - state.prefix
            hooks.on_progress(Progress(done, statistics.mean_acceptance_length, state.codes.copy))
    decoder.batch.watch.lap("other")
    return Generation(state.codes, statistics, "host")


def _check_hooks(loop: Loop, on_round: OnRound | None) -> None:
    """Raise ValueError for hooks that the loop cannot serve. This is a programming error, not a user's mistake."""
    if loop not in get_args(Loop):
        raise ValueError(f"loop: expected one of {', '.join(get_args(Loop))}, found {loop!r}")
    if on_round is not None and loop != "host":
        raise ValueError(f"on_round: expected loop='host', whose rounds it sees, found loop={loop!r}")


def check_length(law: Law, session: Session) -> None:
    """Raise UserError unless the drafts of a round fit into the image."""
    tokens = session.dims.tokens
    if law.length > tokens:
        raise UserError("the draft length", expected=f"at most the image's {tokens}", found=str(law.length))


class DecodingLoop:
    """The host's loop over one batch: the prefill, then one `round` at a time."""

    def __init__(self, session: Session, request: DecodeRequest) -> None:
        """session: must be fresh. Raises UserError if drafts exceed the image."""
        check_length(request.law, session)
        self.batch = Batch(session, request.sampling, request.uniforms, request.forced, request.clock)
        self.state, self.statistics = self.batch.state, self.batch.statistics
        self._session, self._law = session, request.law
        self._drafter = make_drafter(request.drafter, self.batch) if request.length else None
        self._tolerance: Tolerance | None = None  # the law's tolerance with its rates as arrays of the session
        self._rates: Array | None = None

    def prefill(self) -> None:
        """Run the prefix through target and draft, and draw image token 0 from P at position W - 1."""
        state, batch, width = self.state, self.batch, self.state.prefix
        images = len(batch.rows)
        blank = np.zeros((images, width), np.int64)  # ids are ignored: prefix embeddings come from the prompt
        logits, features = self._target(batch.rowwise(blank))
        self._xp = namespace(logits)
        self._prepare_law(logits.device)
        if self._drafter:
            self._drafter.prefill(features)
        at = np.zeros((images, 1), np.int64)
        p = batch.distribution(logits[:, -1:], batch.scale(at), at)
        token = to_host(sample(p[:, 0], batch.put(batch.uniforms[:, 0, 0, RESAMPLE])))
        state.codes[:, 0] = token
        state.committed += width + 1
        state.cached += width
        none = np.zeros(images, np.int64)
        self._draft_allowed = self._confident(p, none)
        self._no_drafts = (self._xp.astype(p[:, :0, 0], self._xp.int64), p[:, :0])
        if self._drafter:
            self._drafter.evaluated(p, p[:, :0], self._no_drafts[0], none, none, batch.window(none == 0))
        batch.watch.lap("verify")

    def round(self) -> RoundRecord:
        """Run one round of every unfinished image. Returns a record of it."""
        state, batch, drafter, length = self.state, self.batch, self._drafter, self._law.length
        # 1. Window. Near the image's end there are fewer drafts; omega keeps its index.
        remaining = state.remaining
        active = remaining > 0
        batch.idle = None if active.all() else batch.put(~active)
        window = batch.window(active)
        num_drafts = np.where(self._draft_allowed, np.minimum(np.maximum(remaining - 1, 0), length), 0)

        # 2. Draft.
        num_drafts, drafts, q = self._draft(window, num_drafts)
        count = drafts.shape[1]

        # 3. Target.
        pending = batch.put(state.codes[batch.rows, state.committed - state.prefix - 1][:, None])
        logits, features = self._target(batch.both(self._xp.concat([pending, drafts], axis=1)))
        if drafter:
            drafter.seen(features)
        p = batch.distribution(logits, window.scale, window.at)

        # 4. Verify.
        verdict = verify(
            p,
            q,
            drafts,
            batch.put(num_drafts),
            self._omegas[:count],
            batch.put(window.uniforms[:, :count, ACCEPT]),
            batch.put(window.uniforms[..., RESAMPLE]),
            self._law.resampler,
            batch.forced_mask(window.at[:, :count]),
            self._tolerance,
            None if self._rates is None else self._rates[:count],
        )
        accepted, proposed = to_host(verdict.accepted), to_host(drafts)
        tokens = np.concatenate([proposed, np.zeros_like(num_drafts)[:, None]], axis=1)
        tokens[batch.rows, accepted] = to_host(verdict.token)
        self._draft_allowed = self._confident(p, accepted)
        if drafter:
            drafter.evaluated(p, q, drafts, accepted, num_drafts, window)
        batch.watch.lap("verify")

        # 5. Commit.
        state.commit(tokens, accepted, active)
        self.statistics.record(accepted, num_drafts, to_host(verdict.degenerate), active)
        if drafter:
            drafter.committed(active)
        return RoundRecord(active, num_drafts, accepted, proposed, tokens, p, q)

    def _draft(self, window: Window, num_drafts: Ints) -> tuple[Ints, Array, Array]:
        """Return how many drafts count [M], and the longest image's number of them: tokens [M, l], Q [M, l, V]."""
        count = int(num_drafts.max())
        if not count or self._drafter is None:
            return num_drafts, *self._no_drafts
        drafts, q = self._drafter.draft(window, count)
        least = self.batch.sampling.draft_confidence
        if least:
            # Q_i depends on the drafts before it alone, so that no token is favoured where it ends the window.
            unsure = to_host(self._xp.max(q, axis=-1)) < least
            run = np.where(unsure.any(axis=1), unsure.argmax(axis=1), count)
            num_drafts = np.minimum(num_drafts, run)
            count = int(num_drafts.max())
            self.batch.watch.lap("verify")
        return num_drafts, drafts[:, :count], q[:, :count]

    def _prepare_law(self, device: Array) -> None:
        """Convert the law's numbers to arrays of the session."""
        xp, law, batch = self._xp, self._law, self.batch
        self._omegas = xp.asarray(law.omegas, dtype=xp.float64, device=device)
        if law.tolerance is not None:
            self._tolerance = replace(law.tolerance, near=batch.put(np.asarray(law.tolerance.near, np.int64)))
        if law.rates is not None:
            self._rates = xp.asarray(law.rates, dtype=xp.float64, device=device)

    def _confident(self, p: Array, at: Ints) -> Host:
        """Return bool [M]: whether the next round may draft, by the top probability of P at window index `at`."""
        rows, least = self.batch.rows, self.batch.sampling.confidence
        if not least:
            return np.ones(len(rows), bool)
        return to_host(self._xp.max(p[rows, at], axis=-1)) >= least

    def _target(self, ids: Array) -> tuple[Array, Array]:
        """Run the target's step at `cached`: logits [R, S, V] and features [R, S, C]."""
        batch = self.batch
        pos = batch.rowwise(self.state.cached)
        batch.watch.lap("other")
        out = self._session.target(ids, pos)
        batch.watch.lap("target")
        return out
