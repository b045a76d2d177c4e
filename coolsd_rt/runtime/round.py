"""Draws a batch: rounds of draft, verify, commit, until every image is complete. A round's code: `decoding_loop`.

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
2. Draft: d_1..d_l, each drawn from its Q, as many as the drafter can propose. Those from the first Q on that is less
   sure than `sampling.draft_confidence` do not count.
3. Target: one step over [pending, d_1..d_L] gives P_1..P_{L+1}, by the same processing as Q.
4. Verify: accept drafts up to the first rejection; resample there, or draw the bonus token.
5. Commit: decide the tokens, advance the counters, update the statistics.

Where the drafts are a tree (`coolsd_rt.runtime.trees`), steps 2 to 4 go over its nodes
(`coolsd_rt.runtime.tree_round`). Before the commit the accepted nodes' cache rows are moved to where a chain would have
left them, so that all of the above holds with L the tree's depth. Under the rule per_position steps 3 and 4 are those
of `coolsd_rt.runtime.position_round`: all drafts become tokens.

A finished image leaves the batch, where the session can drop rows (`RowSession`); elsewhere its rows are stepped until
the last image is finished, and the results are discarded. Images that come one by one are drawn in `slots`. Draft
length 0 is plain decoding: the same code without a draft.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from coolsd_rt.arrays import Host, Ints
from coolsd_rt.law import Law
from coolsd_rt.runtime.decoding_loop import DecodingLoop, check_length
from coolsd_rt.runtime.drafters import DrafterName
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.ngrams import LOOKUP, Lookup
from coolsd_rt.runtime.progress import OnProgress, Progress
from coolsd_rt.runtime.randomness import uniform_table
from coolsd_rt.runtime.sampling import Sampling, forced_ids
from coolsd_rt.runtime.self_decoding import WHOLE, DecodeRequest, Extent, Loop, decodes_itself
from coolsd_rt.runtime.state import RoundRecord, State
from coolsd_rt.runtime.statistics import Generation, Statistics

if TYPE_CHECKING:
    from coolsd_rt.runtime.trees import TreeShape

OnRound = Callable[[State, RoundRecord], None]  # called after the commit


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
    drafter: DrafterName | Lookup = "eagle",
    loop: Loop = "auto",
    hooks: LoopHooks = NO_HOOKS,
    extent: Extent = WHOLE,
    tree: TreeShape | None = None,
) -> Generation:
    """Draw one image per seed on a fresh session for that number of images.

    The session needs 2 rows per image if `sampling.guided`, else 1, and `state.capacity` positions.

    forced: int [N], the token that position n must have (such as a line end), or -1. drafter: the source of drafts; the
    session's draft must be of that kind; a `Lookup` is `ngram` with it. loop: the loop to run; tokens are the same on
    either. extent: of texts, which end at a token. tree: the shape of a round's drafts, with an omega for each depth;
    None: a chain.

    Raises:
        UserError: the draft length exceeds the image, a seed is invalid, the forced or scale list does not fit, the
            tree cannot be combined with the law, the settings or the session, or loop="device" and the session cannot
            run the request by itself.
        ValueError: hooks.on_round without loop="host".
    """
    table = uniform_table(seeds, session.dims.tokens, tree.nodes if tree else law.length, law.passes)
    return decode(
        session, law, sampling, table, forced, drafter=drafter, loop=loop, hooks=hooks, extent=extent, tree=tree
    )


def decode(
    session: Session,
    law: Law,
    sampling: Sampling,
    uniforms: Host,
    forced: Sequence[int] | Ints | None = None,
    *,
    drafter: DrafterName | Lookup = "eagle",
    loop: Loop = "auto",
    hooks: LoopHooks = NO_HOOKS,
    extent: Extent = WHOLE,
    tree: TreeShape | None = None,
) -> Generation:
    """Do the work of `generate` with given random numbers.

    uniforms: [M, N, L + 1, 3] as `uniform_table` lays them out; [M, N, K + 1, 3] with a tree of K nodes; with more
    purposes where the law has several passes.
    """
    _check_hooks(loop, hooks.on_round)
    check_length(law, session)
    ids = forced_ids(forced, session.dims.tokens, session.dims.vocab)
    name: DrafterName = "ngram" if isinstance(drafter, Lookup) else drafter
    lookup = drafter if isinstance(drafter, Lookup) else LOOKUP
    request = DecodeRequest(law, sampling, uniforms, ids, name, hooks.on_progress, hooks.clock, extent, lookup, tree)
    if decodes_itself(session, request, loop):
        return session.decode(request)
    return _Batch(DecodingLoop(session, request), request, hooks).draw()


class _Batch:
    """A batch on the host's loop. It keeps the tokens and counts of all images, those that have left included."""

    def __init__(self, loop: DecodingLoop, request: DecodeRequest, hooks: LoopHooks) -> None:
        self.loop, self.hooks = loop, hooks
        images, state = len(request.uniforms), loop.state
        self.statistics = Statistics.empty(images, request.length)
        self.codes = np.zeros((images, state.tokens), np.int64)
        self._decided = np.zeros(images, np.int64)
        self._there = np.arange(images)  # which image each one of the loop is

    def draw(self) -> Generation:
        """Draw all images."""
        loop = self.loop
        loop.prefill()
        while loop.state.remaining.any():
            self._round()
        self._note()
        loop.batch.watch.lap("other")
        self.statistics.seconds = loop.batch.watch.take()
        return Generation(self.codes, self.statistics, "host", lengths=self._decided)

    def _round(self) -> None:
        loop, hooks = self.loop, self.hooks
        began, whole = hooks.clock(), len(self._there) == len(self.codes)
        record = loop.round()
        self.statistics.record(record.accepted, record.num_drafts, record.degenerate, record.active, self._there)
        self.statistics.count_passes(record)
        if whole:  # a round of fewer images is no round of this batch
            self.statistics.time_round(int(record.num_drafts[record.active].max()), hooks.clock() - began)
        if hooks.on_round is not None:
            hooks.on_round(loop.state, record)
        left = loop.state.remaining
        leaves = bool(left.any()) and not left.all() and loop.changes
        if hooks.on_progress is not None or leaves:
            self._note()
        if hooks.on_round is None and leaves:
            keep = np.flatnonzero(left)
            loop.take(keep)
            self._there = self._there[keep]
        if hooks.on_progress is not None:
            accept_length = self.statistics.mean_acceptance_length
            hooks.on_progress(Progress(self._decided.copy(), accept_length, self.codes.copy))

    def _note(self) -> None:
        """Copy what the images of the loop have."""
        state = self.loop.state
        self.codes[self._there] = state.codes
        self._decided[self._there] = state.decided


def _check_hooks(loop: Loop, on_round: OnRound | None) -> None:
    """Raise ValueError for hooks that the loop cannot serve. This is a programming error, not a user's mistake."""
    if loop not in get_args(Loop):
        raise ValueError(f"loop: expected one of {', '.join(get_args(Loop))}, found {loop!r}")
    if on_round is not None and loop != "host":
        raise ValueError(f"on_round: expected loop='host', whose rounds it sees, found loop={loop!r}")
