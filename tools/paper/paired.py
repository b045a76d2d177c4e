"""Statistics of paired images: two laws draw image k with the same prompt and seed, so differences are taken by image.

    counts           bootstrap samples of image indices, the same for all laws and figures
    ratio, share     accept length (tokens / rounds) and retrieval accuracy, for each bootstrap sample
    Interval         value, standard error, 95% interval and p value from a bootstrap
    mcnemar, holm    the exact test of paired shares; the correction for several comparisons
    compared         a figure of several laws, with differences from one of them, as JSON data
    smallest         the smallest true difference that is found with a given probability

Knows arrays. Does not know sweeps, images or networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, norm

LEVEL = 0.05  # two-sided
POWER = 0.9

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Bools = NDArray[np.bool_]


def counts(images: int, draws: int, seed: int = 0, size: int | None = None) -> Counts:
    """Return how often each bootstrap sample has each image, [draws, images]. size: images of a sample; all."""
    return np.random.default_rng(seed).multinomial(size or images, np.full(images, 1 / images), draws)


def ratio(tokens: Floats, rounds: Floats, weights: Counts) -> Floats:
    """Return the ratio of sums, tokens / rounds, of each bootstrap sample."""
    found: Floats = (weights @ tokens) / (weights @ rounds)
    return found


def share(correct: Bools, weights: Counts) -> Floats:
    """Return the share of true values of each bootstrap sample."""
    found: Floats = (weights @ correct.astype(np.float64)) / weights.sum(1)
    return found


def residuals(tokens: Floats, rounds: Floats) -> Floats:
    """Return each image's influence on tokens / rounds, [N]: the ratio's error is their deviation / sqrt(N)."""
    found: Floats = (tokens - tokens.sum() / rounds.sum() * rounds) / rounds.mean()
    return found


@dataclass(frozen=True)
class LawImages:
    """The images of one law, as numbers.

    Attributes:
        name, series: of the sweep's point.
        tokens, rounds: of each image, [N].
        correct: whether retrieval finds each image's prompt, [N]; None without the measure.
        features: [N, D]; None without the measure.
    """

    name: str
    series: str
    tokens: Floats
    rounds: Floats
    correct: Bools | None = None
    features: Floats | None = None

    @property
    def accept_length(self) -> float:
        """Tokens per round."""
        return float(self.tokens.sum() / self.rounds.sum())

    @property
    def known_correct(self) -> Bools:
        """`correct`. Raises ValueError without the measure."""
        if self.correct is None:
            raise ValueError(f"{self.name} without retrieval")
        return self.correct

    @property
    def known_features(self) -> Floats:
        """`features`. Raises ValueError without the measure."""
        if self.features is None:
            raise ValueError(f"{self.name} without features")
        return self.features


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap.

    Attributes:
        value: the estimate; with `bias` subtracted if the bootstrap was used to correct it.
        error: standard deviation of the bootstrap samples.
        low, high: 95% interval.
        p: two-sided p value of "the true value is 0"; the inversion of the interval, at least 1 / (samples + 1).
        bias: what the bootstrap samples have more than the estimate, on average; 0 if it was not corrected.
    """

    value: float
    error: float
    low: float
    high: float
    p: float
    bias: float = 0.0

    @staticmethod
    def of(value: float, samples: Floats, corrected: bool = False) -> Interval:
        """Return the percentile interval of bootstrap samples.

        corrected: subtract the bootstrap's bias from the estimate, and put the samples around what is left. A Fréchet
        distance needs it: it is too large by about a constant over N, and its bootstrap is too large once more.
        """
        bias = float(samples.mean()) - value if corrected else 0.0
        around = samples - 2 * bias
        low, high = np.quantile(around, [LEVEL / 2, 1 - LEVEL / 2])
        tail = 1 + min(int((around <= 0).sum()), int((around >= 0).sum()))
        p = min(1.0, 2 * tail / (len(samples) + 1))
        return Interval(value - bias, float(samples.std(ddof=1)), float(low), float(high), p, bias)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Discordant:
    """Images that exactly one of two laws gets right. p: of the exact test of McNemar."""

    gained: int
    lost: int
    p: float


def mcnemar(correct: Bools, base: Bools) -> Discordant:
    """Compare a law with a base on the same images. gained: right under the law alone."""
    gained, lost = int((correct & ~base).sum()), int((base & ~correct).sum())
    p = float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0
    return Discordant(gained, lost, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's method, in the order given."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, np.float64)[order] * np.arange(len(p_values), 0, -1)
    out = np.empty(len(p_values))
    out[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(p) for p in out]


def compared(
    names: Sequence[str], base: int, values: Sequence[float], samples: Sequence[Floats], corrected: bool = False
) -> dict[str, dict[str, Any]]:
    """Return each law's value and its difference from the base, with p values, as JSON data.

    samples: one array of bootstrap samples per law, of the same resamples. corrected: as in `Interval.of`.
    """
    rows: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(names):
        own = Interval.of(values[i], samples[i], corrected).as_dict()
        own.pop("p")  # that a length or a share is not 0 is no finding
        row: dict[str, Any] = {"value": own, "difference": None, "p": None, "p_holm": None}
        if i != base:
            apart = Interval.of(values[i] - values[base], samples[i] - samples[base], corrected)
            row |= {"difference": apart.as_dict(), "p": apart.p}
        rows[name] = row
    correct(rows)
    return rows


def correct(rows: Mapping[str, dict[str, Any]]) -> None:
    """Set the p values by Holm's method in rows of `compared`. Once more if their p values were replaced."""
    others = [row for row in rows.values() if row["difference"] is not None]
    for row, p in zip(others, holm([row["p"] for row in others]), strict=True):
        row["p_holm"] = p


def smallest(error: float, level: float = LEVEL, power: float = POWER) -> float:
    """Return the true difference that an estimate with this standard error finds with probability `power`."""
    return float(norm.isf(level / 2) + norm.ppf(power)) * error


def mcnemar_power(images: int, discordant: float, difference: float, level: float = LEVEL) -> float:
    """Return the probability that the exact test of McNemar finds a difference of shares.

    discordant: share of images that exactly one of the two gets right; at least `difference`.
    """
    spread = 8 * math.sqrt(images * discordant * (1 - discordant)) + 8
    first, last = max(0, int(images * discordant - spread)), min(images, int(images * discordant + spread))
    k = np.arange(first, last + 1)
    edge = binom.ppf(level / 2, k, 0.5)
    edge = np.where(binom.cdf(edge, k, 0.5) > level / 2, edge - 1, edge)  # the last count that is rejected
    one = (1 + difference / discordant) / 2
    found = binom.cdf(edge, k, one) + binom.sf(k - edge - 1, k, one)
    return float((binom.pmf(k, images, discordant) * found).sum())


def smallest_share(images: int, discordant: float, level: float = LEVEL, power: float = POWER) -> float:
    """Return the smallest true difference of shares that the exact test finds. NaN: not even `discordant` is found."""
    if discordant <= 0 or mcnemar_power(images, discordant, discordant, level) < power:
        return math.nan
    return float(brentq(lambda d: mcnemar_power(images, discordant, d, level) - power, 0.0, discordant, xtol=1e-6))
