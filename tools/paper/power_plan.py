"""Plans a sweep: the smallest true difference that so many images find, from the paired differences of a pilot.

The error of a paired difference at N images is the pilot's, scaled by 1 / sqrt(N). The smallest difference is that
which a two-sided test at 5% finds with probability 0.9; once for one comparison, once at the first and strictest step
of Holm's correction (5% over the number of comparisons), so that it holds whatever the other comparisons show.

    accept length   error of the difference of two ratios of sums, from each image's influence
    retrieval       share of images that one of the two laws alone gets right; power of the exact test of McNemar
    frechet         standard deviation of the paired bootstrap, with as many references as images

The error of a difference of Fréchet distances has a part that falls as 1 / N, and one as sqrt(difference / N). At the
size of a pilot the first is the larger, so 1 / sqrt(N) promises too little: it is the safe end. The other end takes the
exponent that subsets of the pilot show; the truth is between them.

Knows arrays of images of points. Does not know files or a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tools.paper import paired
from tools.paper.paired import LEVEL, POWER, Bools, Floats, LawImages, counts
from tools.paper.paired_frechet import FrechetPairs

SUBSETS = 200  # subsets of each size, for the check of 1 / sqrt(N)


@dataclass(frozen=True)
class Plan:
    """Number of images to plan for, and of comparisons with the base."""

    images: int
    comparisons: int

    @property
    def levels(self) -> tuple[float, float]:
        """Level of one comparison, and of the first step of Holm's correction."""
        return LEVEL, LEVEL / self.comparisons

    def of_error(self, error: float, pilot: int, exponent: float = -0.5) -> dict[str, float]:
        """Return the smallest differences. error: of the pilot's difference at `pilot` images."""
        planned = error * (self.images / pilot) ** exponent
        one, corrected = (paired.smallest(planned, level) for level in self.levels)
        return {"pilot_error": error, "error": planned, "smallest": one, "smallest_holm": corrected}

    def accept_length(self, point: LawImages, base: LawImages) -> dict[str, float]:
        """Return the smallest differences of accept length."""
        parts = paired.residuals(point.tokens, point.rounds) - paired.residuals(base.tokens, base.rounds)
        difference = point.accept_length - base.accept_length
        error = float(parts.std(ddof=1)) / math.sqrt(len(parts))
        return {"pilot_difference": difference, **self.of_error(error, len(parts))}

    def retrieval(self, point: Bools, base: Bools) -> dict[str, float]:
        """Return the smallest differences of retrieval accuracy that the exact test of McNemar finds."""
        discordant = float((point != base).mean())
        difference = float(point.mean() - base.mean())
        deviation = math.sqrt(max(0.0, discordant - difference**2))
        one, corrected = (paired.smallest_share(self.images, discordant, level) for level in self.levels)
        return {
            "pilot_difference": difference, "discordant": discordant,
            "pilot_error": deviation / math.sqrt(len(point)), "error": deviation / math.sqrt(self.images),
            "smallest": one, "smallest_holm": corrected,
        }  # fmt: skip


def plan_of(
    points: Sequence[LawImages],
    base: int,
    plan: Plan,
    real: Floats | None = None,
    draws: int = 400,
    on_sample: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return the plan as JSON data: of each figure every comparison of the pilot, and the largest of them."""
    own = points[base]
    others = [p for i, p in enumerate(points) if i != base]
    figures: dict[str, Any] = {"accept_length": {p.name: plan.accept_length(p, own) for p in others}}
    if own.correct is not None:
        figures["retrieval"] = {p.name: plan.retrieval(p.known_correct, own.correct) for p in others}
    scaling = None
    if real is not None and own.features is not None:
        pairs = FrechetPairs({p.name: p.known_features for p in points}, real[: len(own.features)])
        figures["frechet"], scaling = _frechet(pairs, own.name, plan, draws, on_sample)
    return {
        "images": plan.images,
        "comparisons": plan.comparisons,
        "level": LEVEL,
        "power": POWER,
        "base": own.name,
        "pilot_images": len(own.rounds),
        "draws": draws,
        "largest": {name: _largest(rows) for name, rows in figures.items()},
        "comparisons_of_the_pilot": figures,
        "frechet_scaling": scaling,
    }


def _largest(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the largest of the comparisons' smallest differences; NaN if one has none."""
    keys = [key for key in next(iter(rows.values())) if key.startswith("smallest")]
    found = {key: [row[key] for row in rows.values()] for key in keys}
    return {key: math.nan if any(map(math.isnan, values)) else max(values) for key, values in found.items()}


def _frechet(
    pairs: FrechetPairs, base: str, plan: Plan, draws: int, on_sample: Callable[[], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the comparisons, and how the error falls with the number of images."""
    names, n = list(pairs.laws), pairs.images
    at = names.index(base)
    value = pairs.value()
    samples = pairs.bootstrap(counts(n, draws), on_sample)
    apart = samples - samples[:, [at]]
    errors = apart.std(0, ddof=1)
    bias = apart.mean(0) - (value - value[at])
    scaling, rows = _scaling(pairs, at, errors), {}
    for i, name in enumerate(names):
        if i != at:
            safe, likely = (plan.of_error(float(errors[i]), n, x) for x in (-0.5, scaling["exponent_used"]))
            by_exponent = {f"{key}_by_exponent": likely[key] for key in ("error", "smallest", "smallest_holm")}
            rows[name] = {"pilot_difference": float(value[i] - value[at] - bias[i]), **safe, **by_exponent}
    return rows, scaling


def _scaling(pairs: FrechetPairs, at: int, errors: Floats) -> dict[str, Any]:
    """Compare the bootstrap's error with subsets of half, a third and a quarter of the images.

    A subset's error is corrected for being drawn without replacement, by sqrt(1 - size / images). exponent: of the
    error over the number of images, from the subsets. exponent_used: the same, kept between -1 and -0.5.
    """
    n, others = pairs.images, [i for i in range(len(errors)) if i != at]
    sizes = sorted({max(3, n // part) for part in (4, 3, 2)})
    by_size = []
    for size in sizes:
        found = pairs.subsampled(size, SUBSETS)
        spread = (found - found[:, [at]]).std(0, ddof=1) / math.sqrt(1 - size / n)
        by_size.append(float(spread[others].mean()))
    exponent = float(np.polyfit(np.log(sizes), np.log(by_size), 1)[0]) if len(sizes) > 1 else math.nan
    bootstrap = float(errors[others].mean())
    predicted = [error * math.sqrt(size / n) for error, size in zip(by_size, sizes, strict=True)]
    return {
        "sizes": sizes, "errors": by_size, "exponent": exponent,
        "exponent_used": min(-0.5, max(-1.0, exponent)) if math.isfinite(exponent) else -0.5,
        "bootstrap_error": bootstrap, "bootstrap_error_predicted_from_sizes": predicted,
    }  # fmt: skip
