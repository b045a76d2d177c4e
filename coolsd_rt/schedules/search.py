"""The best schedule under a budget, found on recorded rounds, against the families that people write down.

A shape is a curve of schedules that relax more and more; a budget picks one point of it. Two sets of images, so that
what is chosen is not judged by what it was chosen on:

1. On a third of the images the shapes are compared: `free`, every omega its own, is found there by SLSQP, all are
   brought to the budget by their estimates, and the best is chosen.
2. On the others each shape goes as far up its curve as a deviation is kept *with confidence*: the one-sided bound of
   its KL (or TV) per token over images (`bounds`) is within the budget. The deviation grows along a curve. So the point
   found is over the budget in truth only if the bound at the curve's true crossing is passed by the truth, which
   happens with probability 1 - confidence, however many points were looked at. That holds for each shape by itself, and
   the one that is recommended was chosen on the first images.

An image is one observation, whatever its rounds (`coolsd_rt.law.clusters`). Knows windows of P and Q, and scipy. Does
not know engines or files.

What it does not see: the law of the places that rounds start from shifts a little under another schedule; prompts of
another kind than those recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Resampler
from coolsd_rt.law.traces import RecordedRounds, RoundForecast, outlook
from coolsd_rt.schedules.bounds import images_needed
from coolsd_rt.schedules.budget import WORDS, Budget, interval
from coolsd_rt.schedules.shapes import FREE, MOST, Omegas, ScheduleShape, compact, families, images_of, split

LEAST_IMAGES = 16  # 11 of them held out: with fewer a bound holds less often than it says
_FIT = 1 / 3  # share of the images to choose on; the bound needs the others
_STEPS = 40  # bisections of a budget
_WORTH = 1e-3  # by how much every omega its own has to beat the best family: as a share of the merit, on the fit
_UNUSED = 0.1  # share of the budget that enough images leave unused


@dataclass(frozen=True)
class HeldOutScore:
    """A shape as far up as the budget is kept on the held-out images."""

    name: str
    omegas: Omegas
    outlook: RoundForecast

    def as_dict(self, confidence: float | None) -> dict[str, Any]:
        o, images = self.outlook, self.outlook.images
        intervals = (
            {}
            if images is None
            else {
                "mean_acceptance_length": interval(images.accept_length, confidence),
                "kl_per_token": interval(images.kl_per_token, confidence),
                "tv_bound_per_token": interval(images.tv_bound_per_token, confidence),
            }
        )
        return {
            "schedule": self.name,
            "omegas": list(self.omegas),
            "mean_acceptance_length": o.accept_length,
            "kl_per_token": o.kl_per_token,
            "tv_bound_per_token": o.tv_bound_per_token,
            "intervals": intervals,
        }


@dataclass(frozen=True)
class ImageSplit:
    """fitted: what the shape was chosen on. held_out: what its place on the curve was. needed: how many recorded ones
    would let the schedule use nine tenths of the budget; None where no confidence is asked for."""

    fitted: int
    held_out: int
    needed: int | None

    @property
    def recorded(self) -> int:
        return self.fitted + self.held_out

    def as_dict(self) -> dict[str, Any]:
        return {
            "recorded": self.recorded,
            "fitted": self.fitted,
            "held_out": self.held_out,
            "needed": self.needed,
        }


@dataclass(frozen=True)
class Tuned:
    """All shapes under one budget, in the order of their merit on the images that they were fitted on."""

    budget: Budget
    judged: tuple[HeldOutScore, ...]
    images: ImageSplit

    @property
    def best(self) -> HeldOutScore:
        return self.judged[0]

    @property
    def rival(self) -> HeldOutScore:
        """The best of the written families."""
        return next(j for j in self.judged if j.name != FREE)

    @property
    def verdict(self) -> str:
        """By how much the best wins, in a line; on the held-out images."""
        rival = self.rival
        if self.best is rival:
            return f"best: {rival.name}; a free omega per position is less than {_WORTH:.1%} better"
        if self.budget.figure == "accept_length":
            share = self.best.outlook.kl_per_token / max(rival.outlook.kl_per_token, 1e-12) - 1
            return f"best: a free omega per position, {share:+.1%} KL per token against the best family ({rival.name})"
        share = self.best.outlook.accept_length / rival.outlook.accept_length - 1
        return f"best: a free omega per position, {share:+.2%} accept length against the best family ({rival.name})"

    @property
    def promise(self) -> str:
        """What is known of the best schedule's held figure, in a line."""
        budget, found = self.budget, self.best.outlook
        line = f"{WORDS[budget.figure]}: {budget.of(found):.4g} on {self.images.held_out} held-out images"
        ends = None if budget.confidence is None else interval(budget.ratio(found), budget.confidence)
        if ends is None:
            return line
        share = f"{100 * (budget.confidence or 0):g}%"
        if budget.figure == "accept_length":
            return f"{line} (interval {ends[0]:.4g} to {ends[1]:.4g}, each end with {share} confidence)"
        return f"{line}, at most {ends[1]:.4g} with {share} confidence (interval {ends[0]:.4g} to {ends[1]:.4g})"

    @property
    def advice(self) -> str | None:
        """How many images the budget needs, in a line; None where those recorded are enough."""
        needed, recorded = self.images.needed, self.images.recorded
        if needed is None or needed <= recorded:
            return None
        return (
            f"{recorded} images leave a large part of the budget unused as a margin; about {needed} (-n {needed}) "
            f"leave a tenth"
        )

    def as_dict(self) -> dict[str, Any]:
        rows = [j.as_dict(self.budget.confidence) for j in self.judged]
        return {
            "budget": {self.budget.figure: self.budget.value},
            "confidence": self.budget.confidence,
            "images": self.images.as_dict(),
            "best": rows[0],
            "rival": self.rival.name,
            "all": rows,
            "verdict": self.verdict,
        }


def tune(windows: RecordedRounds, budget: Budget, resampler: Resampler = "optimal") -> Tuned:
    """The best schedule of all shapes that keeps the budget.

    Raises UserError: too few images, or a budget that no schedule meets.
    """
    budget.check()
    windows = compact(windows)
    count = len(images_of(windows))
    if count < LEAST_IMAGES:
        raise _too_few(windows, count, budget, resampler)
    fit, held = split(windows, _FIT)
    _reachable(held, budget, resampler)
    judged = []
    for shape in _ranked(fit, replace(budget, confidence=None), resampler):
        omegas = _meet(held, shape, budget, resampler)
        if omegas is not None:
            judged.append(HeldOutScore(shape.name, omegas, outlook(held, Law(omegas, resampler))))
    fitted = len(images_of(fit))
    needed = _needed(judged[0].outlook, budget, count / (count - fitted))
    return Tuned(budget, tuple(judged), ImageSplit(fitted, count - fitted, needed))


def _ranked(windows: RecordedRounds, budget: Budget, resampler: Resampler) -> list[ScheduleShape]:
    """All shapes, the best first; every omega its own only stands before the best family if it is worth it."""

    def merit(omegas: Omegas | None) -> float:
        return -math.inf if omegas is None else budget.merit(outlook(windows, Law(omegas, resampler)))

    met = [(shape, _meet(windows, shape, budget, resampler)) for shape in families(windows.length)]
    rated = sorted(((merit(omegas), shape, omegas) for shape, omegas in met), key=lambda r: -r[0])
    free = _free(windows, budget, resampler, [omegas for _, _, omegas in rated[:2] if omegas is not None])
    best, shapes = rated[0][0], [shape for _, shape, _ in rated]
    own = merit(_meet(windows, free, budget, resampler))
    place = 0 if math.isinf(best) or own > best + _WORTH * abs(best) else 1
    return [*shapes[:place], free, *shapes[place:]]


def _needed(found: RoundForecast, budget: Budget, whole: float) -> int | None:
    """How many recorded images leave a tenth of the budget as margin. whole: recorded images for each held-out one.

    None where no margin is asked for.
    """
    if budget.confidence is None or budget.figure == "accept_length":
        return None
    ratio = budget.ratio(found)
    if ratio.value <= 0 or budget.bound(found) < (1 - _UNUSED) * budget.value:
        return LEAST_IMAGES  # nothing deviates, or all relaxation there is stays within: more images change nothing
    margin = ratio.value * _UNUSED / (1 - _UNUSED)
    return max(LEAST_IMAGES, math.ceil(whole * images_needed(ratio, margin, budget.confidence)))


def _too_few(windows: RecordedRounds, count: int, budget: Budget, resampler: Resampler) -> UserError:
    """With the number that the budget needs, by how much the few that there are differ."""
    needed = None
    if count > 1:
        uniform = next(shape for shape in families(windows.length) if shape.name == "uniform")
        omegas = _meet(windows, uniform, replace(budget, confidence=None), resampler)
        if omegas is not None:
            needed = _needed(outlook(windows, Law(omegas, resampler)), budget, 1 / (1 - _FIT))
    why = "" if needed is None else ", the number that this budget requires given the spread of these images"
    fix = f"record more: -n {needed or LEAST_IMAGES}{why}"
    return UserError("a recording to tune on", expected=f"at least {LEAST_IMAGES} images", found=f"{count}", fix=fix)


def _reachable(windows: RecordedRounds, budget: Budget, resampler: Resampler) -> None:
    """Raise UserError if even no relaxation, or all of it, does not meet the budget."""
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
    """The shape's point at the budget, by bisection, in the four digits that a spec is written with; None if it never
    gets there."""

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
            return at(low)  # as relaxed as it goes, and still within the budget
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if over(middle) else (middle, high)
        if at(low) == at(high):
            break
    return at(high if budget.figure == "accept_length" else low)


def _free(windows: RecordedRounds, budget: Budget, resampler: Resampler, starts: Sequence[Omegas]) -> ScheduleShape:
    """Every omega its own, at least 1: below that a position is lossless, and only accepts less.

    starts: the best families. Works in log(omega). The result is a shape again, through its excess over 1.
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
