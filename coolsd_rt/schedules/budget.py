"""What a tuned schedule has to keep: a figure, its value, and with which confidence.

A deviation (KL, TV) is kept with confidence: its one-sided bound over images is within the value. An accept length is
reached by the estimate, and its interval says how far other images may be: it differs so much between images, lossless
too, that a bound would buy it with several times the deviation.

Knows outlooks and bounds. Does not know schedules, nor how one is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coolsd_rt import limits
from coolsd_rt.law.clusters import RatioEstimate
from coolsd_rt.law.traces import RoundForecast
from coolsd_rt.schedules.bounds import lower, upper

Figure = Literal["accept_length", "kl", "tv"]
WORDS: dict[Figure, str] = {"accept_length": "accept length", "kl": "KL per token", "tv": "TV bound per token"}


@dataclass(frozen=True)
class Budget:
    """An accept length of at least, or a deviation per generated token of at most, `value`.

    confidence: with which a deviation is within the value on all images, not only on those recorded. None: by the
    estimate, which is over it half of the time; for comparing shapes on the same rounds.
    """

    figure: Figure
    value: float
    confidence: float | None = 0.95

    def of(self, found: RoundForecast) -> float:
        """The estimate of the held figure."""
        return {"accept_length": found.accept_length, "kl": found.kl_per_token, "tv": found.tv_bound_per_token}[
            self.figure
        ]

    def bound(self, found: RoundForecast) -> float:
        """What has to be on the right side of the value: the upper bound of a deviation, an estimated accept length."""
        if self.confidence is None or self.figure == "accept_length":
            return self.of(found)
        return upper(self.ratio(found), self.confidence)

    def ratio(self, found: RoundForecast) -> RatioEstimate:
        """The held figure with its error over images. Raises ValueError if the images are not known."""
        if found.images is None:
            raise ValueError("windows that say which image they are of")
        return {
            "accept_length": found.images.accept_length,
            "kl": found.images.kl_per_token,
            "tv": found.images.tv_bound_per_token,
        }[self.figure]

    def merit(self, found: RoundForecast) -> float:
        """What is to be large: the accept length, or, if that is held, minus the KL per token."""
        return -found.kl_per_token if self.figure == "accept_length" else found.accept_length

    def check(self) -> None:
        """Raise UserError if no schedule can have such a budget."""
        ends = {"accept_length": limits.ACCEPT_LENGTH, "kl": limits.KL, "tv": limits.TV}[self.figure]
        ends.check("the budget", self.value)
        if self.confidence is not None:
            limits.CONFIDENCE.check("the confidence", self.confidence)


def interval(ratio: RatioEstimate, confidence: float | None) -> tuple[float, float] | None:
    """Both ends, each of which holds with the confidence."""
    return None if confidence is None else (lower(ratio, confidence), upper(ratio, confidence))
