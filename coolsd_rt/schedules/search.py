"""Finds the best schedule under a budget on recorded rounds, and compares it with the schedule families of a spec.

A shape is a curve of schedules with increasing relaxation; a budget selects one point on it. The images are split in
two, so that a choice is not judged on the images that it was made on:

1. On a third of the images the shapes are compared. `free`, in which every omega is independent, is found by SLSQP. All
   shapes are scaled to the budget by their estimates, and the best is chosen.
2. On the other images each shape is scaled up as far as its deviation is kept *with confidence*: the one-sided bound of
   its KL (or TV) per token over images (`bounds`) is within the budget. The deviation increases along a curve. So the
   point found exceeds the budget in truth only if the truth exceeds the bound at the curve's true crossing, which has
   probability 1 - confidence, however many points were examined. This holds for each shape separately, and the
   recommended shape was chosen on the first images.

An image is one observation, whatever the number of its rounds (`coolsd_rt.law.clusters`). Knows windows of P and Q, and
scipy. Does not know engines or files.

Not covered: another schedule slightly changes the distribution of the prefixes that rounds start from, and prompts may
differ in kind from the recorded ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import optimize

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Resampler
from coolsd_rt.law.traces import RecordedRounds, RoundForecast, outlook
from coolsd_rt.schedules.bounds import images_needed
from coolsd_rt.schedules.budget import Budget
from coolsd_rt.schedules.merging import compact
from coolsd_rt.schedules.recording import Noun
from coolsd_rt.schedules.shapes import FREE, MOST, Omegas, ScheduleShape, families, images_of, split
from coolsd_rt.schedules.tuned import WORTH, HeldOutScore, ImageSplit, Tuned

LEAST_IMAGES = 16  # 11 of them held out; with fewer the bound is less reliable than its confidence
FIT = 1 / 3  # share of the images to choose the shape on; the others are for the bound
_STEPS = 40  # bisection steps
_UNUSED = 0.1  # share of the budget left unused when there are enough images


def tune(windows: RecordedRounds, budget: Budget, resampler: Resampler = "optimal", noun: Noun = "images") -> Tuned:
    """Find the best schedule of all shapes that keeps the budget. noun: what the windows are of.

    Raises UserError if there are too few images, or if no schedule meets the budget.
    """
    budget.check()
    windows = compact(windows)
    count = len(images_of(windows))
    if count < LEAST_IMAGES:
        raise _too_few(windows, count, budget, resampler, noun)
    fit, held = split(windows, FIT)
    _reachable(held, budget, resampler)
    judged = []
    for shape in _ranked(fit, replace(budget, confidence=None), resampler):
        omegas = _meet(held, shape, budget, resampler)
        if omegas is not None:
            judged.append(HeldOutScore(shape.name, omegas, outlook(held, Law(omegas, resampler))))
    fitted = len(images_of(fit))
    needed = _needed(judged[0].outlook, budget, count / (count - fitted))
    return Tuned(budget, tuple(judged), ImageSplit(fitted, count - fitted, needed), noun)


def _ranked(windows: RecordedRounds, budget: Budget, resampler: Resampler) -> list[ScheduleShape]:
    """Return all shapes, the best first. `free` precedes the best family only if its advantage exceeds `WORTH`."""

    def merit(omegas: Omegas | None) -> float:
        return -math.inf if omegas is None else budget.merit(outlook(windows, Law(omegas, resampler)))

    met = [(shape, _meet(windows, shape, budget, resampler)) for shape in families(windows.length)]
    rated = sorted(((merit(omegas), shape, omegas) for shape, omegas in met), key=lambda r: -r[0])
    free = _free(windows, budget, resampler, [omegas for _, _, omegas in rated[:2] if omegas is not None])
    best, shapes = rated[0][0], [shape for _, shape, _ in rated]
    own = merit(_meet(windows, free, budget, resampler))
    place = 0 if math.isinf(best) or own > best + WORTH * abs(best) else 1
    return [*shapes[:place], free, *shapes[place:]]


def _needed(found: RoundForecast, budget: Budget, whole: float) -> int | None:
    """Return how many recorded images leave a tenth of the budget as margin; None without a confidence.

    whole: recorded images per held-out image.
    """
    if budget.confidence is None or budget.figure == "accept_length":
        return None
    ratio = budget.ratio(found)
    if ratio.value <= 0 or budget.bound(found) < (1 - _UNUSED) * budget.value:
        return LEAST_IMAGES  # no deviation, or all relaxation is within the budget: more images change nothing
    margin = ratio.value * _UNUSED / (1 - _UNUSED)
    return max(LEAST_IMAGES, math.ceil(whole * images_needed(ratio, margin, budget.confidence)))


def _too_few(windows: RecordedRounds, count: int, budget: Budget, resampler: Resampler, noun: Noun) -> UserError:
    """Return the error for too few images, with the number that the budget needs at the observed variation."""
    needed = None
    if count > 1:
        uniform = next(shape for shape in families(windows.length) if shape.name == "uniform")
        omegas = _meet(windows, uniform, replace(budget, confidence=None), resampler)
        if omegas is not None:
            needed = _needed(outlook(windows, Law(omegas, resampler)), budget, 1 / (1 - FIT))
    why = "" if needed is None else f", the number that this budget requires given the spread of these {noun}"
    fix = f"record more: -n {needed or LEAST_IMAGES}{why}"
    return UserError("a recording to tune on", expected=f"at least {LEAST_IMAGES} {noun}", found=f"{count}", fix=fix)


def _reachable(windows: RecordedRounds, budget: Budget, resampler: Resampler) -> None:
    """Raise UserError if the budget is not met even without relaxation, or even with the most."""
    if budget.figure != "accept_length":
        return
    low, high = (outlook(windows, Law((w,) * windows.length, resampler)).accept_length for w in (1.0, MOST))
    if budget.value > high:
        found, fix = f"{budget.value:g}", "use a longer draft length, or a better draft"
        expected = f"at most {high:.2f}, the maximum that relaxation reaches here"
        raise UserError("the accept length", expected=expected, found=found, fix=fix)
    if budget.value < low:
        expected = f"at least {low:.2f}, which is lossless here"
        raise UserError("the accept length", expected=expected, found=f"{budget.value:g}", fix="use schedule none")


def _meet(windows: RecordedRounds, shape: ScheduleShape, budget: Budget, resampler: Resampler) -> Omegas | None:
    """Return the shape's point at the budget, to four digits; None if it never meets the budget."""

    def at(t: float) -> Omegas:
        return tuple(round(w, 4) for w in shape.at(t))

    def over(t: float) -> bool:
        return budget.bound(outlook(windows, Law(at(t), resampler))) >= budget.value

    low, high = 0.0, 1.0
    while not over(high):
        low, high = high, 2 * high
        if high > MOST:
            if budget.figure == "accept_length":
                return None
            return at(low)  # most relaxed point, still within the budget
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if over(middle) else (middle, high)
        if at(low) == at(high):
            break
    return at(high if budget.figure == "accept_length" else low)


def _free(windows: RecordedRounds, budget: Budget, resampler: Resampler, starts: Sequence[Omegas]) -> ScheduleShape:
    """Find the best independent omegas, each at least 1: below 1 a position is lossless anyway and only accepts less.

    starts: the best families, as starting points. Optimises log(omega). Returns a shape that scales the excess over 1.
    """

    def seen(x: Any) -> RoundForecast:
        return outlook(windows, Law(tuple(np.exp(np.clip(x, 0, math.log(MOST)))), resampler))

    sign = 1.0 if budget.figure == "accept_length" else -1.0
    held = {"type": "ineq", "fun": lambda x: sign * (budget.of(seen(x)) - budget.value)}
    best: tuple[float, np.ndarray[Any, Any]] | None = None
    for omegas in starts:
        result = optimize.minimize(
            lambda x: -budget.merit(seen(x)),
            np.log(np.maximum(omegas, 1.0)),
            method="SLSQP",
            bounds=[(0.0, math.log(MOST))] * windows.length,
            constraints=[held],
            options={"maxiter": 40, "ftol": 1e-6},
        )
        if best is None or result.fun < best[0]:
            best = (float(result.fun), np.exp(np.clip(result.x, 0, math.log(MOST))))
    above = np.zeros(windows.length) if best is None else best[1] - 1
    return ScheduleShape(FREE, lambda t: tuple((1 + t * above).tolist()))
