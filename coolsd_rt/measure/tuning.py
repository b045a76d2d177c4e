"""The best schedule under a budget, found on recorded rounds, against the families that people write down.

A shape is a curve of schedules that relax more and more; a budget picks one point of it. `free` is every omega its
own, found by SLSQP on one half of the recording; all shapes are then brought to the same budget on the other half,
and judged there. Knows windows of P and Q, and scipy. Does not know engines or files.

What it does not see: the law of the places that rounds start from shifts a little under another schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import optimize

from coolsd_rt import limits
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Resampler, make_omegas
from coolsd_rt.law.traces import Outlook, Windows, outlook

Figure = Literal["accept_length", "kl", "tv"]
Omegas = tuple[float, ...]
_MOST = 64.0  # relaxation beyond which a shape is not followed
_STEPS = 40  # bisections of a budget


@dataclass(frozen=True)
class Budget:
    """What is held: an accept length of at least, or a deviation per generated token of at most, `value`."""

    figure: Figure
    value: float

    def of(self, found: Outlook) -> float:
        """The held figure of an outlook."""
        return {"accept_length": found.accept_length, "kl": found.kl_per_token, "tv": found.tv_bound_per_token}[
            self.figure
        ]

    def merit(self, found: Outlook) -> float:
        """What is to be large: the accept length, or, if that is held, minus the KL per token."""
        return -found.kl_per_token if self.figure == "accept_length" else found.accept_length

    def check(self) -> None:
        """Raise UserError if no schedule can have such a budget."""
        ends = {"accept_length": limits.ACCEPT_LENGTH, "kl": limits.KL, "tv": limits.TV}[self.figure]
        ends.check("the budget", self.value)


@dataclass(frozen=True)
class Shape:
    """A curve of schedules: `at(t)` for t >= 0, from lossless (t = 0) to more and more relaxed."""

    name: str
    at: Callable[[float], Omegas]


@dataclass(frozen=True)
class Judged:
    """A shape brought to the budget on the held-out half."""

    name: str
    omegas: Omegas
    outlook: Outlook


@dataclass(frozen=True)
class Tuned:
    """All shapes at one budget, the best first. `best` is never behind any other on the held-out half."""

    budget: Budget
    judged: tuple[Judged, ...]

    @property
    def best(self) -> Judged:
        return self.judged[0]

    @property
    def rival(self) -> Judged:
        """The best of the written families."""
        return next(j for j in self.judged if j.name != FREE)

    @property
    def verdict(self) -> str:
        """By how much the best wins, in a line."""
        rival = self.rival
        if self.best is rival:
            return f"best: {rival.name}; a schedule with every omega its own gains nothing here"
        if self.budget.figure == "accept_length":
            share = 1 - self.best.outlook.kl_per_token / max(rival.outlook.kl_per_token, 1e-12)
            return f"best: every omega its own, {share:.1%} less KL per token than the best family ({rival.name})"
        share = self.best.outlook.accept_length / rival.outlook.accept_length - 1
        return f"best: every omega its own, {share:.2%} longer accepted than the best family ({rival.name})"

    def as_dict(self) -> dict[str, Any]:
        rows = [
            {
                "schedule": j.name,
                "omegas": list(j.omegas),
                "mean_acceptance_length": j.outlook.accept_length,
                "kl_per_token": j.outlook.kl_per_token,
                "tv_bound_per_token": j.outlook.tv_bound_per_token,
            }
            for j in self.judged
        ]
        return {
            "budget": {self.budget.figure: self.budget.value},
            "best": rows[0],
            "rival": self.rival.name,
            "all": rows,
            "verdict": self.verdict,
        }


FREE = "free"


def families(length: int) -> list[Shape]:
    """The shapes that a spec can write in a line, as curves over their budget."""

    def excess(nu: float) -> Shape:
        return Shape(f"excess, nu {nu:g}", lambda t: make_omegas("excess", length, beta=t, nu=nu))

    def floored(kind: Literal["exponential", "linear"]) -> Shape:
        return Shape(f"{kind}, floor 1", lambda t: make_omegas(kind, length, delta=t, floor=1.0))

    return [
        Shape("exponential", lambda t: make_omegas("exponential", length, delta=t)),
        floored("exponential"),
        floored("linear"),
        Shape("uniform", lambda t: make_omegas("uniform", length, delta=1 + t)),
        *(excess(nu) for nu in (0.1, 0.3, 0.7)),
    ]


def compact(windows: Windows) -> Windows:
    """The same windows over the codes that P or Q gives any weight: a filter like top-k leaves a few dozen of V.

    What stands beyond the image's end is not looked at, and becomes uniform.
    """
    counts = np.arange(windows.length) < windows.valid[:, None]
    seen = ((windows.target > 0) | (windows.draft > 0)) & counts[..., None]
    width = max(1, int(seen.sum(-1).max()))
    if width == seen.shape[-1]:
        return windows
    order = np.argsort(~seen, axis=-1, kind="stable")[..., :width]
    drafts = (order == windows.drafts[..., None]).argmax(-1)
    target, draft = (
        np.where(counts[..., None], np.take_along_axis(a, order, axis=-1), 1.0 / width)
        for a in (windows.target, windows.draft)
    )
    return replace(windows, target=target, draft=draft, drafts=drafts)


def halves(windows: Windows) -> tuple[Windows, Windows]:
    """Every other stretch of rounds: to fit on, and to judge on."""
    block = np.arange(len(windows.drafts)) // 32 % 2 == 0
    parts = []
    for chosen in (block, ~block):
        parts.append(
            Windows(windows.target[chosen], windows.draft[chosen], windows.drafts[chosen], windows.valid[chosen])
        )
    return parts[0], parts[1]


def tune(windows: Windows, budget: Budget, resampler: Resampler = "optimal") -> Tuned:
    """The best schedule of all shapes at the budget.

    Raises UserError: too little was recorded, or a budget that no schedule meets.
    """
    if len(windows.drafts) < 128:
        found = f"{len(windows.drafts)} rounds"
        raise UserError("a recording to tune on", expected="at least 128 rounds", found=found, fix="draw more pictures")
    fit, held = halves(compact(windows))
    _reachable(held, budget, resampler)
    shapes = [*families(windows.length), _free(fit, budget, resampler)]
    judged = []
    for shape in shapes:
        omegas = _meet(held, shape, budget, resampler)
        if omegas is not None:
            judged.append(Judged(shape.name, omegas, outlook(held, Law(omegas, resampler))))
    return Tuned(budget, tuple(sorted(judged, key=lambda j: -budget.merit(j.outlook))))


def _reachable(windows: Windows, budget: Budget, resampler: Resampler) -> None:
    """Raise UserError if even no relaxation, or all of it, does not meet the budget."""
    budget.check()
    if budget.figure != "accept_length":
        return
    low, high = (outlook(windows, Law((w,) * windows.length, resampler)).accept_length for w in (1.0, _MOST))
    if budget.value > high:
        found, fix = f"{budget.value:g}", "draft more tokens a round, or a better draft"
        raise UserError("the accept length", expected=f"at most {high:.2f}, all that relaxation can reach here",
                        found=found, fix=fix)  # fmt: skip
    if budget.value < low:
        raise UserError("the accept length", expected=f"at least {low:.2f}, which is lossless here",
                        found=f"{budget.value:g}", fix="use schedule none")  # fmt: skip


def _meet(windows: Windows, shape: Shape, budget: Budget, resampler: Resampler) -> Omegas | None:
    """The shape's point at the budget, by bisection; None if it never gets there."""

    def over(t: float) -> bool:
        return budget.of(outlook(windows, Law(shape.at(t), resampler))) >= budget.value

    low, high = 0.0, 1.0
    while not over(high):
        low, high = high, 2 * high
        if high > _MOST:
            if budget.figure == "accept_length":
                return None
            return shape.at(low)  # as relaxed as it goes, and still within the budget
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if over(middle) else (middle, high)
    return shape.at(high if budget.figure == "accept_length" else low)


def _free(windows: Windows, budget: Budget, resampler: Resampler) -> Shape:
    """Every omega its own, at least 1: below that a position is lossless, and only accepts less.

    Starts from the best families; works in log(omega). The result is a shape again, through its excess over 1.
    """

    def seen(x: Any) -> Outlook:
        return outlook(windows, Law(tuple(np.exp(np.clip(x, 0, math.log(_MOST)))), resampler))

    sign = 1.0 if budget.figure == "accept_length" else -1.0
    held = {"type": "ineq", "fun": lambda x: sign * (budget.of(seen(x)) - budget.value)}
    best: tuple[float, np.ndarray[Any, Any]] | None = None
    for omegas in _starts(windows, budget, resampler):
        result = optimize.minimize(
            lambda x: -budget.merit(seen(x)),
            np.log(np.maximum(omegas, 1.0)),
            method="SLSQP",
            bounds=[(0.0, math.log(_MOST))] * windows.length,
            constraints=[held],
            options={"maxiter": 40, "ftol": 1e-6},
        )
        if best is None or result.fun < best[0]:
            best = (float(result.fun), np.exp(np.clip(result.x, 0, math.log(_MOST))))
    above = np.zeros(windows.length) if best is None else best[1] - 1
    return Shape(FREE, lambda t: tuple((1 + t * above).tolist()))


def _starts(windows: Windows, budget: Budget, resampler: Resampler) -> Sequence[Omegas]:
    met = [_meet(windows, shape, budget, resampler) for shape in families(windows.length)]
    rated = [(budget.merit(outlook(windows, Law(w, resampler))), w) for w in met if w is not None]
    return [omegas for _, omegas in sorted(rated, reverse=True)[:2]]
