"""The round: draft, verify, commit, until every picture is full.

Drives any `Session` (a fake of ten lines, eager PyTorch, ONNX Runtime) for M pictures at once. Does not know which
backend steps, where prompts come from, or what a code looks like. The probabilities are `coolsd_rt.law`'s, the tensor
operations `coolsd_rt.ops`', the random numbers `coolsd_rt.runtime.randomness`'.

Legend: M pictures, R rows (2M under CFG, all conditional first; M if every scale is 1), W prefix length, N image
tokens, L draft length, V codes. Positions count the prefix. Window index i counts from the first undecided token.

Authoritative state (`State`, host integers per picture; everything else can be recomputed or is thrown away):

| counter   | truth it holds                                                                   |
|-----------|----------------------------------------------------------------------------------|
| committed | positions whose token is decided                                                 |
| cached    | positions in the target's KV cache; their features are known                     |
| drafted   | rows of the draft's KV cache made from real features (row t = feature t, token t + 1) |

Invariants between rounds:
- `cached == committed - 1`: the last decided token is pending, the next target step takes it in.
- `drafted <= cached`, and the rows between enter the draft in the next round's first step, with real features.
- Stale cache rows (rejected drafts, rows made from predicted features) lie at or beyond `cached`, or `drafted`. The
  mask hides what lies beyond a step's positions, and writing at `cached` overwrites it: rollback is an integer.
- Features exist for cached tokens only: those of positions `drafted..cached-1` are kept from the target's last steps.

One round:
1. Window: how many drafts each picture can still use (none where the target was unsure of its last token, if
   `sampling.confidence` says so), its uniforms, its CFG scales, its forced tokens.
2. Draft: the newly cached positions enter the draft with real features; then d_1..d_L, each from its own Q.
3. Target: one step over [pending, d_1..d_L] gives P_1..P_{L+1}, by the same processing as Q.
4. Verdict: accept up to the first rejection; resample there, or take the bonus token.
5. Commit: decide the tokens, move the counters, count.

A finished picture rides along inert until the last one is done: its rows are stepped, and nothing of it is kept.
Draft length 0 is plain decoding: the same code, without a draft.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Tolerance
from coolsd_rt.ops import process_logits, sample, verify
from coolsd_rt.ops.logits import MIN_TEMPERATURE
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.randomness import ACCEPT, DRAFT, RESAMPLE, uniform_table
from coolsd_rt.runtime.sampling import Sampling, forced_ids
from coolsd_rt.runtime.state import CATCH_UP, Host, Ints, RoundRecord, State
from coolsd_rt.runtime.statistics import Generation, Statistics, Stopwatch
from coolsd_rt.runtime.unseen import Unseen

Array = Any  # of the session's namespace
OnProgress = Callable[[int, float], None]  # image tokens decided in all pictures, mean accept length so far
OnRound = Callable[[State, RoundRecord], None]  # after the commit

_NAMES = {np.dtype(name): name for name in ("int64", "float32", "float64", "bool")}  # str(dtype) costs microseconds


def generate(
    session: Session,
    law: Law,
    sampling: Sampling,
    seeds: Sequence[int],
    forced: Sequence[int] | Ints | None = None,
    *,
    on_progress: OnProgress | None = None,
    on_round: OnRound | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Generation:
    """Draw one picture per seed on a fresh session of as many pictures.

    The session needs 2 rows per picture if `sampling.guided`, else 1, and `state.capacity` positions.
    forced: int [N], the token that position n must have (a line's end), or -1.
    Raises UserError: a draft length above the image, a bad seed, a forced list or scale list that does not fit.
    """
    table = uniform_table(seeds, session.dims.tokens, law.length)
    return decode(session, law, sampling, table, forced, on_progress=on_progress, on_round=on_round, clock=clock)


def decode(
    session: Session,
    law: Law,
    sampling: Sampling,
    uniforms: Host,
    forced: Sequence[int] | Ints | None = None,
    *,
    on_progress: OnProgress | None = None,
    on_round: OnRound | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Generation:
    """`generate` with the random numbers given: uniforms [M, N, L + 1, 3] as `uniform_table` lays them out."""
    decoder = Decoder(session, law, sampling, uniforms, forced, clock)
    decoder.prefill()
    state, statistics = decoder.state, decoder.statistics
    while state.remaining.any():
        record = decoder.round()
        if on_round is not None:
            on_round(state, record)
        if on_progress is not None:
            done = int((state.committed - state.prefix).sum())
            on_progress(done, statistics.mean_acceptance_length)
    decoder.watch.lap("other")
    return Generation(state.codes, statistics)


class Decoder:
    """The state of one batch, and the round that moves it."""

    def __init__(
        self,
        session: Session,
        law: Law,
        sampling: Sampling,
        uniforms: Host,
        forced: Sequence[int] | Ints | None,
        clock: Callable[[], float],
    ) -> None:
        dims, pictures = session.dims, uniforms.shape[0]
        if law.length > dims.tokens:
            raise UserError("the draft length", expected=f"at most the image's {dims.tokens}", found=str(law.length))
        self.state = State.empty(pictures, dims)
        self.statistics = Statistics.empty(pictures, law.length)
        self.watch = Stopwatch(self.statistics.seconds, clock)
        self._session, self._law, self._sampling, self._uniforms = session, law, sampling, uniforms
        self._paired = sampling.guided
        self._scales = sampling.scales(dims.tokens)
        self._forced = forced_ids(forced, dims.tokens, dims.vocab)
        self._rows = np.arange(pictures)
        self._offsets = np.arange(law.length + 1)
        self._idle: Array | None = None  # bool [M], finished pictures, once there are any
        self._tolerance: Tolerance | None = None  # the law's own, and its rates, as the session's arrays
        self._rates: Array | None = None
        fused = session.fused_length == law.length and sampling.top_p >= 1.0 and self._paired
        self._fused = fused and law.length > 0

    def prefill(self) -> None:
        """The prefix through target and draft, and image token 0 from P at position W - 1."""
        state, session, width = self.state, self._session, self.state.prefix
        pictures = len(self._rows)
        blank = np.zeros((pictures, width), np.int64)  # prefix positions are embedded from the prompt; ids are ignored
        logits, features = self._target(self._rowwise(blank))
        self._xp = xp = array_namespace(logits)
        self._row_ids = self._rowwise(self._rows, offset=pictures)
        self._omegas = xp.asarray(self._law.omegas, dtype=xp.float64, device=logits.device)
        law = self._law
        if law.tolerance is not None:
            self._tolerance = replace(law.tolerance, near=self._put(np.asarray(law.tolerance.near, np.int64)))
        if law.rates is not None:
            self._rates = xp.asarray(law.rates, dtype=xp.float64, device=logits.device)
        if self._law.length > 0 and width > 1:
            session.draft(self._rowwise(blank[:, 1:]), features[:, :-1], self._rowwise(state.drafted))
            state.drafted += width - 1
            self.watch.lap("draft")
        self._unseen = Unseen(state, self._rowwise, self._row_ids, features[:, -1:])
        at = np.zeros((pictures, 1), np.int64)
        p = self._distribution(logits[:, -1:], self._scale(at), at)
        token = _host(sample(p[:, 0], self._put(self._uniforms[:, 0, 0, RESAMPLE])))
        state.codes[:, 0] = token
        state.committed += width + 1
        state.cached += width
        self._sure = self._confident(p, np.zeros(pictures, np.int64))
        self._no_drafts = (xp.astype(p[:, :0, 0], xp.int64), p[:, :0])
        self.watch.lap("law")

    def round(self) -> RoundRecord:
        """One round of every unfinished picture."""
        state, length = self.state, self._law.length
        # 1. Window. Near the end drafts are clipped, omega keeps its index.
        remaining = state.remaining
        active = remaining > 0
        self._idle = None if active.all() else self._put(~active)
        valid = np.where(self._sure, np.minimum(np.maximum(remaining - 1, 0), length), 0)
        count = int(valid.max())
        at = state.image_index(state.committed, length + 1)
        u = self._uniforms[self._rows[:, None], at, self._offsets]
        scale = self._scale(at)

        # 2. Draft.
        drafts, q = self._draft(count, active, at, self._put(u[..., DRAFT]), scale) if count else self._no_drafts

        # 3. Target.
        pending = self._put(state.codes[self._rows, state.committed - state.prefix - 1][:, None])
        ids = self._xp.concat([pending, drafts], axis=1)
        logits, features = self._target(self._both(ids))
        if length:
            self._unseen.add(features)
        p = self._distribution(logits, scale, at)

        # 4. Verdict.
        verdict = verify(
            p, q, drafts, self._put(valid), self._omegas[:count], self._put(u[:, :count, ACCEPT]),
            self._put(u[..., RESAMPLE]), self._law.resampler, self._forced_mask(at[:, :count]), self._tolerance,
            None if self._rates is None else self._rates[:count],
        )  # fmt: skip
        accepted, proposed = _host(verdict.accepted), _host(drafts)
        window = np.concatenate([proposed, np.zeros_like(valid)[:, None]], axis=1)
        window[self._rows, accepted] = _host(verdict.token)
        self._sure = self._confident(p, accepted)
        self.watch.lap("law")

        # 5. Commit.
        state.commit(window, accepted, active)
        self.statistics.record(accepted, valid, _host(verdict.degenerate), active)
        if length and int((state.cached - state.drafted)[active].max()) >= CATCH_UP:
            self._catch_up(active)
        return RoundRecord(active, valid, accepted, proposed, window, p, q)

    def _draft(self, count: int, active: Host, at: Ints, u: Array, scale: Array | None) -> tuple[Array, Array]:
        """`count` drafts of each picture: tokens int64 [M, count] and the Q they were drawn from [M, count, V].

        The first step is ragged: as many rows as the last round decided tokens, padded to the longest. What the
        padding writes is overwritten before a mask shows it.
        """
        session = self._session
        ids, features, pos, fresh = self._unseen.take(active)
        width = ids.shape[1]
        self.watch.lap("other")
        if self._fused and self._forced_mask(at[:, :count]) is None:
            tokens, q = session.propose(
                ids, features, pos, self._rowwise(fresh), u[:, :-1], scale[:, :-1],  # type: ignore[index]
                max(self._sampling.temperature, MIN_TEMPERATURE), self._sampling.top_k or session.dims.vocab,
            )  # fmt: skip
            self.watch.lap("draft")
            return tokens[:, :count], q[:, :count]

        logits, features = session.draft(ids, features, pos)
        if width > 1:
            last = self._rowwise(fresh - 1)
            logits, features = logits[self._row_ids, last][:, None], features[self._row_ids, last][:, None]
        tokens, laws = [], []
        for i in range(count):
            if i > 0:  # on the draft's own features, in cache rows that the next round overwrites
                logits, features = session.draft(
                    self._both(tokens[-1]), features, self._rowwise(self.state.cached + i - 1)
                )
            self.watch.lap("draft")
            q = self._distribution(logits, scale, at, start=i)
            tokens.append(sample(q, u[:, i : i + 1]))
            laws.append(q)
            self.watch.lap("law")
        return self._xp.concat(tokens, axis=1), self._xp.concat(laws, axis=1)

    def _catch_up(self, active: Host) -> None:
        """Bring the draft's cache up to date after many rounds without it, so that its next step stays narrow.

        The last row is left: the next drafts start from what the draft makes of it.
        """
        ids, features, pos, fresh = self._unseen.take(active, spared=1)
        self._session.draft(ids, features, pos)
        self._unseen.leave_one(fresh)
        self.watch.lap("draft")

    def _confident(self, p: Array, at: Ints) -> Host:
        """bool [M]: whether the target was sure enough, at window index `at` of P, for a round with drafts."""
        if not self._sampling.confidence:
            return np.ones(len(self._rows), bool)
        return _host(self._xp.max(p[self._rows, at], axis=-1)) >= self._sampling.confidence

    def _target(self, ids: Array) -> tuple[Array, Array]:
        """The target's step at `cached`: logits [R, S, V] and features [R, S, C]."""
        pos = self._rowwise(self.state.cached)
        self.watch.lap("other")
        out = self._session.target(ids, pos)
        self.watch.lap("target")
        return out

    def _distribution(self, logits: Array, scale: Array | None, at: Ints, start: int = 0) -> Array:
        """P or Q [M, S, V] of window indices start..start+S-1; a forced token is a point mass in both."""
        window = slice(start, start + logits.shape[1])
        s = self._sampling
        probs = process_logits(logits, None if scale is None else scale[:, window], s.temperature, s.top_k, s.top_p)
        if self._idle is not None:  # whatever a finished picture's rows hold, NaN included, it must not matter
            probs[self._idle] = 1.0 / probs.shape[-1]
        if self._forced is not None:
            ids = self._forced[at[:, window]]
            for row, i in np.argwhere(ids >= 0).tolist():
                probs[row, i] = 0.0
                probs[row, i, int(ids[row, i])] = 1.0
        return probs

    def _forced_mask(self, at: Ints) -> Array | None:
        """bool, shaped as `at`, of the forced window indices; None if there are none."""
        if self._forced is None:
            return None
        mask = self._forced[at] >= 0
        return self._session.asarray(mask, "bool") if mask.any() else None

    def _scale(self, at: Ints) -> Array | None:
        """CFG scale of each window index, shaped as `at`; None without CFG."""
        return self._put(self._scales[at]) if self._paired else None

    def _put(self, host: Host) -> Array:
        return self._session.asarray(host, _NAMES[host.dtype])

    def _rowwise(self, host: Host, offset: int = 0) -> Array:
        """Per picture -> per row, int64. The unconditional row is given what the conditional one is given."""
        return self._put(np.concatenate([host, host + offset]) if self._paired else host)

    def _both(self, ids: Array) -> Array:
        """The same, for an array of the session's."""
        return self._xp.concat([ids, ids], axis=0) if self._paired else ids


def _host(array: Array) -> Host:
    """Small results come to the host once a round; the rest stays where the session computes."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.tolist())
