"""Times the rounds of a batch by their number of drafts, on a session that is discarded afterwards.

The round itself is timed (`coolsd_rt.runtime.round.DecodingLoop`), at a quarter and at three quarters of an image: a
step's cost grows with the cache that it reads. Drafts and logits have no meaning there. A cost is the median over
several turns: work of others on the machine slows all kinds of rounds down, and the choice is between kinds.

Knows the loop. Does not know engines, prompts, or where costs are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coolsd_rt.arrays import Bools, Floats64, Ints
from coolsd_rt.runtime.costs import JACOBI, PLACES, DrafterName, PlaceSeconds, RoundCosts
from coolsd_rt.runtime.drafters.eagle import EagleDrafter
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.pacing import Choice
from coolsd_rt.runtime.round import DecodingLoop
from coolsd_rt.runtime.self_decoding import DecodeRequest

TURNS = 6  # at most; the first turn of a place does not count
SECONDS = 2.0  # no further turn after this long
Kind = tuple[int, int, bool]  # a drafter's number, its drafts, and whether an EAGLE head makes them in single steps
PLAIN: Kind = (-1, 0, False)
CONSECUTIVE = 3  # rounds of one kind in a row: the first pays for what the kind before it left in the caches
PENDING = 2  # decided tokens that a round's first draft step takes in: a typical number after short drafts
FEW = 3  # single steps of an EAGLE head are tried up to this many drafts
SINGLE_PAYS = 0.95  # share of the fused graph's seconds below which single steps are chosen


class _Script:
    """A pacer that makes the drafts it is told to make."""

    reads_p = reads_q = hopeful = True
    retired: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.drafter, self.length = 0, 0

    def before(self, confidence: Floats64, most: Ints, active: Bools) -> Choice:
        return Choice(self.drafter, np.minimum(most, self.length))

    def after(self, q_top: Floats64, num_drafts: Ints) -> Ints:
        return num_drafts

    def learn(self, accepted: Ints, num_drafts: Ints, active: Bools) -> None:
        pass


def lengths_to_time(length: int) -> list[int]:
    """Return the numbers of drafts whose judging is timed: all up to 6, then every fourth. Others are interpolated."""
    return sorted({*range(min(length, 6) + 1), *range(8, length, 4), length})


def measure_costs(session: Session, request: DecodeRequest, drafters: Sequence[DrafterName]) -> RoundCosts:
    """Time the rounds of a batch.

    session: fresh, for the images of `request`, with the capacity of a paced batch. drafters: those that the session
    can run. Jacobi drafts, which take no step of a model, give the cost of judging drafts. Raises as the session does.
    """
    length = request.length
    jacobi = next((name for name in drafters if name in JACOBI), JACOBI[0])
    models = [name for name in drafters if name not in JACOBI]
    bench = _Bench(session, request, (jacobi, *models))
    kinds = [(0, n, False) for n in lengths_to_time(length)]
    for number in range(1, len(models) + 1):
        fused = bench.is_fused(number)
        kinds += [(number, n, False) for n in sorted({1, length} if not fused else {length})]
        kinds += [(number, n, True) for n in range(1, min(FEW, length - 1) + 1)] if fused else []
    kinds = [PLAIN, *kinds]
    measured = [bench.run(place, kinds) for place in PLACES]  # ascending: caches grow and never shrink
    verify = tuple(_filled({n: s for (d, n, _), s in seconds.items() if d == 0}, length) for seconds in measured)
    drafts: dict[DrafterName, PlaceSeconds] = {}
    single_steps: tuple[int, ...] = ()
    for name in drafters:
        if name in JACOBI:
            drafts[name] = ((0.0,) * (length + 1),) * len(PLACES)
            continue
        number = models.index(name) + 1
        made = [_made(seconds, line, number) for seconds, line in zip(measured, verify, strict=True)]
        whole: list[list[float]] = [_line({n: s for (n, one), s in at.items() if not one}, length) for at in made]
        for n in sorted({n for n, one in made[0] if one}):
            if sum(at[n, True] for at in made) < SINGLE_PAYS * sum(line[n] for line in whole):
                single_steps += (n,)
                for line, at in zip(whole, made, strict=True):
                    line[n] = at[n, True]
        drafts[name] = tuple(map(tuple, whole))
    plain = tuple(seconds[PLAIN] for seconds in measured)
    return RoundCosts(len(request.uniforms), plain, verify, tuple(drafts.items()), single_steps)


def _made(seconds: dict[Kind, float], verify: Sequence[float], number: int) -> dict[tuple[int, bool], float]:
    """Seconds of making drafts: those of the round, less those of judging as many."""
    return {(n, single): max(s - verify[n], 0.0) for (d, n, single), s in seconds.items() if d == number}


def _line(made: dict[int, float], length: int) -> list[float]:
    """Seconds by number of drafts, from those of some numbers; [L + 1]."""
    known = sorted(made)
    return [0.0, *np.interp(np.arange(1, length + 1), known, [made[n] for n in known]).tolist()]


def _filled(least: dict[int, float], length: int) -> tuple[float, ...]:
    """Seconds of every number of drafts. More drafts never cost less: where they seem to, fewer were disturbed."""
    known = sorted(least)
    line = np.interp(np.arange(length + 1), known, [least[n] for n in known])
    return tuple(np.minimum.accumulate(line[::-1])[::-1].tolist())


class _Bench:
    """A loop that is put at a place in the image before every round."""

    def __init__(self, session: Session, request: DecodeRequest, drafters: tuple[DrafterName, ...]) -> None:
        self._script, self._clock = _Script(), request.clock
        ones = ((1.0,) * (request.length + 1),) * len(PLACES)
        costs = RoundCosts(
            len(request.uniforms), ones[0][:1] * len(PLACES), ones, tuple((name, ones) for name in drafters)
        )
        sampling = replace(request.sampling, costs=costs)
        self._loop = DecodingLoop(session, replace(request, sampling=sampling), self._script)
        self._loop.prefill()
        self._pending = 1  # after the prefill

    def is_fused(self, number: int) -> bool:
        """Return whether the drafter has a graph that makes all drafts at once."""
        drafter = self._loop.drafters[number]
        return isinstance(drafter, EagleDrafter) and drafter.is_fused

    def run(self, place: float, kinds: Sequence[Kind]) -> dict[Kind, float]:
        """Return the seconds of a round of each kind at a place of the image."""
        seconds: dict[Kind, list[float]] = {kind: [] for kind in kinds}
        began = self._clock()
        for turn in range(TURNS):
            if turn > 1 and self._clock() - began > SECONDS / len(PLACES):
                break
            for kind in kinds:
                took = [self._round(place, kind) for _ in range(CONSECUTIVE)]
                seconds[kind] += took if turn else []
        return {kind: float(np.median(every)) for kind, every in seconds.items()}

    def _round(self, place: float, kind: Kind) -> float:
        state = self._loop.state
        self._script.drafter, self._script.length, single = kind
        every = frozenset(range(len(self._loop.drafters)))
        self._script.retired = every if kind == PLAIN else frozenset()
        drafter = self._loop.drafters[max(kind[0], 0)]
        if isinstance(drafter, EagleDrafter):
            drafter.single_counts = (kind[1],) if single else ()
        at = state.prefix + max(1, int((state.tokens - kind[1] - 1) * place))
        state.committed[:] = at
        state.cached[:] = at - 1
        state.drafted[:] = at - 1 - self._pending
        self._pending = min(PENDING, at - 1)
        began = self._clock()
        self._loop.round()
        return self._clock() - began
