"""The round: draft, verify, commit, until every image is full.

Drives any `Session` (a fake of ten lines, eager PyTorch, ONNX Runtime) for M images at once, with drafts of any
`coolsd_rt.runtime.drafters`. Does not know which backend steps, where prompts come from, or what a code looks like. The
probabilities are `coolsd_rt.law`'s, the tensor operations `coolsd_rt.ops`', the random numbers
`coolsd_rt.runtime.randomness`'.

Legend: M images, R rows (2M under CFG, all conditional first; M if every scale is 1), W prefix length, N image
tokens, L draft length, V codes. Positions count the prefix. Window index i counts from the first undecided token.

Authoritative state (`State`, host integers per image; everything else can be recomputed or is thrown away):

| counter   | truth it holds                                                                   |
|-----------|----------------------------------------------------------------------------------|
| committed | positions whose token is decided                                                 |
| cached    | positions in the target's KV cache; their features are known                     |
| drafted   | rows of the draft's KV cache made from decided tokens; its drafter says what a row is |

Invariants between rounds:
- `cached == committed - 1`: the last decided token is pending, the next target step takes it in.
- `drafted <= committed`, and the rows between enter the draft in the next round's first step.
- Stale cache rows (rejected drafts, rows made from guesses) lie at or beyond `cached`, or `drafted`. The mask hides
  what lies beyond a step's positions, and writing at `cached` overwrites it: rollback is an integer.

One round:
1. Window: how many drafts each image can still use, its uniforms, its CFG scales, its forced tokens.
2. Draft: d_1..d_l, each from its own Q. How many are made, by which drafter, and how many of them count, a pacer says
   (`coolsd_rt.runtime.pacing`).
3. Target: one step over [pending, d_1..d_L] gives P_1..P_{L+1}, by the same processing as Q.
4. Verdict: accept up to the first rejection; resample there, or take the bonus token.
5. Commit: decide the tokens, move the counters, count.

A finished image rides along inert until the last one is done: its rows are stepped, and nothing of it is kept.
Draft length 0 is plain decoding: the same code, without a draft.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from coolsd_rt.arrays import Array, Floats64, Host, Ints
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Tolerance
from coolsd_rt.law.arrays import namespace
from coolsd_rt.ops import sample, verify
from coolsd_rt.runtime.batch import Batch, Window, to_host
from coolsd_rt.runtime.drafters import DrafterName, make_drafter
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.pacing import Pacer, make_pacer
from coolsd_rt.runtime.progress import OnProgress, Progress
from coolsd_rt.runtime.randomness import ACCEPT, RESAMPLE, uniform_table
from coolsd_rt.runtime.sampling import Sampling, forced_ids
from coolsd_rt.runtime.self_decoding import DecodeRequest, SelfDecodingSession
from coolsd_rt.runtime.state import RoundRecord, State
from coolsd_rt.runtime.statistics import Generation

OnRound = Callable[[State, RoundRecord], None]  # after the commit
Loop = Literal["auto", "host", "device"]
"""auto: the session's own loop where it has one that serves the request, else the host's."""


@dataclass(frozen=True)
class LoopHooks:
    """What a caller wants to see of a loop.

    on_progress: called after rounds, as often as the loop learns of them. on_round: called after every round, with its
    P and Q, which only the host's loop sees. clock: seconds, for the statistics.
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
    """Draw one image per seed on a fresh session of as many images.

    The session needs 2 rows per image if `sampling.guided`, else 1, and `state.capacity` positions.
    forced: int [N], the token that position n must have (a line's end), or -1. drafter: where drafts come from; the
    session's draft has to be of that kind. loop: which loop runs; the tokens are the same.
    Raises UserError: a draft length above the image, a bad seed, a forced list or scale list that does not fit,
    loop="device" where the session cannot run the request by itself. ValueError: hooks.on_round without loop="host".
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
    """`generate` with the random numbers given: uniforms [M, N, L + 1, 3] as `uniform_table` lays them out."""
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
            raise UserError(
                'loop="device"', expected="an engine and a request with a loop of their own", found=found, fix=fix
            )
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
            hooks.on_progress(
                Progress(state.committed - state.prefix, statistics.mean_acceptance_length, state.codes.copy)
            )
    decoder.batch.watch.lap("other")
    return Generation(state.codes, statistics, "host")


def _check_hooks(loop: Loop, on_round: OnRound | None) -> None:
    """Raise ValueError for what no loop can do: these are a program's mistakes, not a user's."""
    if loop not in get_args(Loop):
        raise ValueError(f"loop: expected one of {', '.join(get_args(Loop))}, found {loop!r}")
    if on_round is not None and loop != "host":
        raise ValueError(f"on_round: expected loop='host', whose rounds it sees, found loop={loop!r}")


def check_length(law: Law, session: Session) -> None:
    """Raise UserError unless a round's drafts fit into the image."""
    tokens = session.dims.tokens
    if law.length > tokens:
        raise UserError("the draft length", expected=f"at most the image's {tokens}", found=str(law.length))


class DecodingLoop:
    """One batch, and the round that moves it."""

    def __init__(self, session: Session, request: DecodeRequest, pacer: Pacer | None = None) -> None:
        """session: fresh. pacer: in the place of the request's. Raises UserError: a draft length above the image."""
        check_length(request.law, session)
        self.batch = Batch(session, request.sampling, request.uniforms, request.forced, request.clock)
        self.state, self.statistics = self.batch.state, self.batch.statistics
        self._session, self._law = session, request.law
        self._pacer = pacer or make_pacer(request.sampling, session.dims.tokens)
        names = request.drafters if request.length and self._pacer.hopeful else ()
        self._drafters = [make_drafter(name, self.batch) for name in names]
        self._tolerance: Tolerance | None = None  # the law's own, and its rates, as the session's arrays
        self._rates: Array | None = None

    def prefill(self) -> None:
        """The prefix through target and draft, and image token 0 from P at position W - 1."""
        state, batch, width = self.state, self.batch, self.state.prefix
        images = len(batch.rows)
        blank = np.zeros((images, width), np.int64)  # prefix positions are embedded from the prompt; ids are ignored
        logits, features = self._target(batch.rowwise(blank))
        self._xp = namespace(logits)
        self._prepare_law(logits.device)
        for drafter in self._drafters:
            drafter.prefill(features)
        at = np.zeros((images, 1), np.int64)
        p = batch.distribution(logits[:, -1:], batch.scale(at), at)
        token = to_host(sample(p[:, 0], batch.put(batch.uniforms[:, 0, 0, RESAMPLE])))
        state.codes[:, 0] = token
        state.committed += width + 1
        state.cached += width
        none = np.zeros(images, np.int64)
        self._confidence = self._confidence_at(p, none)
        self._no_drafts = (self._xp.astype(p[:, :0, 0], self._xp.int64), p[:, :0])
        for drafter in self._drafters:
            drafter.evaluated(p, p[:, :0], self._no_drafts[0], none, none, batch.window(none == 0))
        batch.watch.lap("verify")

    def round(self) -> RoundRecord:
        """One round of every unfinished image."""
        state, batch, length = self.state, self.batch, self._law.length
        # 1. Window. Near the end drafts are clipped, omega keeps its index.
        remaining = state.remaining
        active = remaining > 0
        batch.idle = None if active.all() else batch.put(~active)
        window = batch.window(active)
        most = np.minimum(np.maximum(remaining - 1, 0), length)

        # 2. Draft.
        num_drafts, drafts, q = self._draft(window, most)
        count = drafts.shape[1]

        # 3. Target.
        pending = batch.put(state.codes[batch.rows, state.committed - state.prefix - 1][:, None])
        logits, features = self._target(batch.both(self._xp.concat([pending, drafts], axis=1)))
        for drafter in self._drafters:
            drafter.seen(features)
        p = batch.distribution(logits, window.scale, window.at)

        # 4. Verdict.
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
        self._confidence = self._confidence_at(p, accepted)
        for drafter in self._drafters:
            drafter.evaluated(p, q, drafts, accepted, num_drafts, window)
        batch.watch.lap("verify")

        # 5. Commit.
        state.commit(tokens, accepted, active)
        self.statistics.record(accepted, num_drafts, to_host(verdict.degenerate), active)
        self._pacer.learn(accepted, num_drafts, active)
        for drafter in self._drafters:
            drafter.committed(active)
        return RoundRecord(active, num_drafts, accepted, proposed, tokens, p, q)

    def _draft(self, window: Window, most: Ints) -> tuple[Ints, Array, Array]:
        """How many drafts count [M], and the longest image's number of them: tokens [M, L'], Q [M, L', V].

        most: int64 [M], drafts that fit into each image.
        """
        if not self._drafters:
            return np.zeros_like(most), *self._no_drafts
        choice = self._pacer.before(self._confidence, most, window.active)
        num_drafts = choice.num_drafts
        count = int(num_drafts.max())
        if not count:
            return num_drafts, *self._no_drafts
        drafts, q = self._drafters[choice.drafter].draft(window, count)
        if self._pacer.reads_q:
            top = np.asarray(to_host(self._xp.max(q, axis=-1)), np.float64)
            num_drafts = self._pacer.after(top, num_drafts)
            count = int(num_drafts.max())
            self.batch.watch.lap("verify")
        return num_drafts, drafts[:, :count], q[:, :count]

    def _prepare_law(self, device: Array) -> None:
        """The law's numbers as the session's arrays."""
        xp, law, batch = self._xp, self._law, self.batch
        self._omegas = xp.asarray(law.omegas, dtype=xp.float64, device=device)
        if law.tolerance is not None:
            self._tolerance = replace(law.tolerance, near=batch.put(np.asarray(law.tolerance.near, np.int64)))
        if law.rates is not None:
            self._rates = xp.asarray(law.rates, dtype=xp.float64, device=device)

    def _confidence_at(self, p: Array, at: Ints) -> Floats64:
        """float64 [M]: the top probability of P at window index `at`; ones where the pacer does not read it."""
        rows = self.batch.rows
        if not self._pacer.reads_p or not self._drafters:
            return np.ones(len(rows))
        return np.asarray(to_host(self._xp.max(p[rows, at], axis=-1)), np.float64)

    def _target(self, ids: Array) -> tuple[Array, Array]:
        """The target's step at `cached`: logits [R, S, V] and features [R, S, C]."""
        batch = self.batch
        pos = batch.rowwise(self.state.cached)
        batch.watch.lap("other")
        out = self._session.target(ids, pos)
        batch.watch.lap("target")
        return out
