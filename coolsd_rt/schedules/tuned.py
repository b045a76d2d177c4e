"""What tuning found: every shape at the budget, and how the images were split.

Knows forecasts, budgets and their intervals. Does not know windows, or how a shape is scaled. An image is an
observation; for an engine that writes text it is a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coolsd_rt.law.traces import RoundForecast
from coolsd_rt.schedules.budget import WORDS, Budget, interval
from coolsd_rt.schedules.recording import Noun
from coolsd_rt.schedules.shapes import FREE, Omegas

WORTH = 1e-3  # relative advantage in merit that `free` needs over the best family, on the fitted images


@dataclass(frozen=True)
class HeldOutScore:
    """A shape scaled up as far as the budget is kept on the held-out images."""

    name: str
    omegas: Omegas
    outlook: RoundForecast

    def as_dict(self, confidence: float | None) -> dict[str, Any]:
        """Return JSON data. confidence: of the intervals."""
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
    """Numbers of images.

    Attributes:
        fitted: images on which the shape was chosen.
        held_out: images on which its scale was chosen.
        needed: recorded images with which the schedule would use nine tenths of the budget; None without a confidence.
    """

    fitted: int
    held_out: int
    needed: int | None

    @property
    def recorded(self) -> int:
        """Number of recorded images."""
        return self.fitted + self.held_out

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {
            "recorded": self.recorded,
            "fitted": self.fitted,
            "held_out": self.held_out,
            "needed": self.needed,
        }


@dataclass(frozen=True)
class Tuned:
    """All shapes under one budget, ordered by their merit on the images that they were fitted on.

    noun: what the images are.
    """

    budget: Budget
    judged: tuple[HeldOutScore, ...]
    images: ImageSplit
    noun: Noun = "images"

    @property
    def best(self) -> HeldOutScore:
        """The shape with the highest merit."""
        return self.judged[0]

    @property
    def rival(self) -> HeldOutScore:
        """The best of the families that a spec can name."""
        return next(j for j in self.judged if j.name != FREE)

    @property
    def verdict(self) -> str:
        """One line: the advantage of the best shape, on the held-out images."""
        rival = self.rival
        if self.best is rival:
            return f"best: {rival.name}; a free omega per position is less than {WORTH:.1%} better"
        if self.budget.figure == "accept_length":
            share = self.best.outlook.kl_per_token / max(rival.outlook.kl_per_token, 1e-12) - 1
            return f"best: a free omega per position, {share:+.1%} KL per token against the best family ({rival.name})"
        share = self.best.outlook.accept_length / rival.outlook.accept_length - 1
        return f"best: a free omega per position, {share:+.2%} accept length against the best family ({rival.name})"

    @property
    def promise(self) -> str:
        """One line: what is known of the best schedule's budget figure."""
        budget, found = self.budget, self.best.outlook
        line = f"{WORDS[budget.figure]}: {budget.of(found):.4g} on {self.images.held_out} held-out {self.noun}"
        ends = None if budget.confidence is None else interval(budget.ratio(found), budget.confidence)
        if ends is None:
            return line
        share = f"{100 * (budget.confidence or 0):g}%"
        if budget.figure == "accept_length":
            return f"{line} (interval {ends[0]:.4g} to {ends[1]:.4g}, each end with {share} confidence)"
        return f"{line}, at most {ends[1]:.4g} with {share} confidence (interval {ends[0]:.4g} to {ends[1]:.4g})"

    @property
    def advice(self) -> str | None:
        """One line: how many images the budget needs; None if enough were recorded."""
        needed, recorded = self.images.needed, self.images.recorded
        if needed is None or needed <= recorded:
            return None
        return (
            f"{recorded} {self.noun} leave a large part of the budget unused as a margin; about {needed} (-n {needed}) "
            f"leave a tenth"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document of `tune --json`."""
        rows = [j.as_dict(self.budget.confidence) for j in self.judged]
        return {
            "budget": {self.budget.figure: self.budget.value},
            "confidence": self.budget.confidence,
            self.noun: self.images.as_dict(),
            "best": rows[0],
            "rival": self.rival.name,
            "all": rows,
            "verdict": self.verdict,
        }
