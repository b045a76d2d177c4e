"""Times the rounds of a batch by their number of drafts, on a session that is thrown away afterwards.

The round itself is timed (`coolsd_rt.runtime.round.DecodingLoop`), with drafts and logits of no meaning, in the middle
of an image. A cost is the least of several interleaved turns: what else runs on the machine only ever adds to it.

Knows the loop. Does not know engines, prompts, or where costs are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from coolsd_rt.arrays import Bools, Floats64, Ints
from coolsd_rt.runtime.costs import DrafterName, RoundCosts
from coolsd_rt.runtime.interface import Session, proposing
from coolsd_rt.runtime.pacing import Choice
from coolsd_rt.runtime.round import DecodingLoop
from coolsd_rt.runtime.self_decoding import DecodeRequest

TURNS = range(3, 13)  # of every kind of round, after one that does not count: at least 3, at most 12
SECONDS = 2.0  # no further turn after this long
PENDING = 2  # decided tokens that a round's first draft step takes in: about what a round of short drafts decides
JACOBI = ("jacobi", "jacobi_coupled")
OpenSession = Callable[[], Session]


class _Script:
    """A pacer that does as it is told."""

    reads_p = reads_q = hopeful = True

    def __init__(self) -> None:
        self.drafter, self.length = 0, 0

    def before(self, confidence: Floats64, most: Ints, active: Bools) -> Choice:
        return Choice(self.drafter, np.minimum(most, self.length))

    def after(self, q_top: Floats64, num_drafts: Ints) -> Ints:
        return num_drafts

    def learn(self, accepted: Ints, num_drafts: Ints, active: Bools) -> None:
        pass


def lengths_to_time(length: int) -> list[int]:
    """Numbers of drafts that are timed: all up to 6, then about every fourth; those between are interpolated."""
    few = [*range(min(length, 6) + 1), *range(8, length, 4), length]
    return sorted(set(few))


def measure_costs(open_session: OpenSession, request: DecodeRequest, drafters: Sequence[DrafterName]) -> RoundCosts:
    """Time the rounds of as many images as `request` has uniforms for.

    open_session: gives a fresh session for those images. drafters: those that the session can run. Jacobi drafts,
    which take no step of a model, give the seconds of judging drafts. Raises as the session does.
    """
    lengths = lengths_to_time(request.length)
    request = replace(request, sampling=replace(request.sampling, costs=None))
    jacobi = _Timed(open_session(), request, "jacobi_coupled" if "jacobi_coupled" in drafters else "jacobi")
    others = [(name, single) for name in drafters if name not in JACOBI for single in (False, True)]
    timed = {
        (name, single): _Timed(open_session(), request, name, single)
        for name, single in others
        if not single or _has_fused(open_session, name, request.length)
    }
    began = request.clock()
    for turn in range(TURNS.stop):
        if turn > TURNS.start and request.clock() - began > SECONDS:
            break
        for n in lengths:
            for one in (jacobi, *timed.values()):
                one.round(n, counts=turn > 0)
    verify = _filled(jacobi.least, request.length)
    drafts: dict[DrafterName, tuple[float, ...]] = {}
    single_steps: tuple[int, ...] = ()
    for name in drafters:
        if name in JACOBI:
            drafts[name] = tuple(0.0 for _ in verify)
            continue
        made = _making(_filled(timed[name, False].least, request.length), verify)
        if (name, True) in timed:
            stepwise = _making(_filled(timed[name, True].least, request.length), verify)
            single_steps = tuple(n for n in range(1, len(made)) if stepwise[n] < 0.95 * made[n])
            made = tuple(stepwise[n] if n in single_steps else made[n] for n in range(len(made)))
        drafts[name] = made
    return RoundCosts(len(request.uniforms), verify, tuple(drafts.items()), single_steps)


def _has_fused(open_session: OpenSession, name: DrafterName, length: int) -> bool:
    return name == "eagle" and proposing(open_session(), length) is not None


def _filled(least: dict[int, float], length: int) -> tuple[float, ...]:
    """Seconds of every number of drafts. More drafts never cost less: where they seem to, fewer were disturbed."""
    known = sorted(least)
    line = np.interp(np.arange(length + 1), known, [least[n] for n in known])
    return tuple(np.minimum.accumulate(line[::-1])[::-1].tolist())


def _making(whole: tuple[float, ...], verify: tuple[float, ...]) -> tuple[float, ...]:
    """Seconds of the drafts alone: of the round, less those of a round that is given as many."""
    return (0.0, *(max(w - v, 0.0) for w, v in zip(whole[1:], verify[1:], strict=True)))


class _Timed:
    """A loop that stands in the middle of an image, and returns there after every round."""

    def __init__(self, session: Session, request: DecodeRequest, name: DrafterName, single: bool = False) -> None:
        self._script, self._clock = _Script(), request.clock
        if single:
            every = tuple(range(request.length + 1))
            zeros = (1.0,) * len(every)
            costs = RoundCosts(len(request.uniforms), zeros, ((name, zeros),), every)
            request = replace(request, sampling=replace(request.sampling, costs=costs))
        self._loop = DecodingLoop(session, replace(request, drafter=name), self._script)
        self._loop.prefill()
        self._pending = 1
        self.least: dict[int, float] = {}

    def round(self, drafts: int, counts: bool) -> None:
        """Run one round of so many drafts, and time it if it counts. The first does not: it has one token pending."""
        state, self._script.length = self._loop.state, drafts
        middle = state.prefix + max(1, (state.tokens - drafts) // 2)
        state.committed[:] = middle
        state.cached[:] = middle - 1
        state.drafted[:] = middle - 1 - self._pending
        self._pending = min(PENDING, middle - 1)
        began = self._clock()
        self._loop.round()
        if counts:
            self.least[drafts] = min(self.least.get(drafts, np.inf), self._clock() - began)
