"""The budget that a tuned schedule has to keep: a figure, its value, and a confidence.

A deviation (KL, TV) is kept with confidence: its one-sided bound over images is within the value. An accept length is
met by its estimate, and its interval shows the variation on other images. It varies so much between images, even
lossless, that meeting it by a bound would cost several times the deviation.

Knows forecasts and bounds. Does not know schedules or how one is found.
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
    """An accept length of at least `value`, or a deviation per generated token of at most `value`.

    confidence: probability that a deviation is within the value on all images, not only on the recorded ones. None: use
    the estimate, which is below the true deviation half of the time; for comparing shapes on the same rounds.
    """

    figure: Figure
    value: float
    confidence: float | None = 0.95

    def of(self, found: RoundForecast) -> float:
        """Return the estimate of the budget's figure."""
        return {"accept_length": found.accept_length, "kl": found.kl_per_token, "tv": found.tv_bound_per_token}[
            self.figure
        ]

    def bound(self, found: RoundForecast) -> float:
        """Return what is compared with the value: a deviation's upper bound, or the estimated accept length."""
        if self.confidence is None or self.figure == "accept_length":
            return self.of(found)
        return upper(self.ratio(found), self.confidence)

    def ratio(self, found: RoundForecast) -> RatioEstimate:
        """Return the budget's figure with its error over images. Raises ValueError if the images are not known."""
        if found.images is None:
            raise ValueError("windows that say which image they are of")
        return {
            "accept_length": found.images.accept_length,
            "kl": found.images.kl_per_token,
            "tv": found.images.tv_bound_per_token,
        }[self.figure]

    def merit(self, found: RoundForecast) -> float:
        """Return what is maximised: the accept length, or minus the KL per token if the accept length is given."""
        return -found.kl_per_token if self.figure == "accept_length" else found.accept_length

    def check(self) -> None:
        """Raise UserError if no schedule can have such a budget."""
        ends = {"accept_length": limits.ACCEPT_LENGTH, "kl": limits.KL, "tv": limits.TV}[self.figure]
        ends.check("the budget", self.value)
        if self.confidence is not None:
            limits.CONFIDENCE.check("the confidence", self.confidence)


def interval(ratio: RatioEstimate, confidence: float | None) -> tuple[float, float] | None:
    """Return both ends of an interval, each of which holds at the confidence."""
    return None if confidence is None else (lower(ratio, confidence), upper(ratio, confidence))
