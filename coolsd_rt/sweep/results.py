"""The result files of a sweep: one per finished point, and one with all points and their Pareto fronts.

Knows figures and JSON. Does not know how they were measured or plotted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from coolsd_rt.law import Law
from coolsd_rt.limits import RESULT_BYTES
from coolsd_rt.metrics.metric import KINDS, Figure, Kind, front
from coolsd_rt.runtime.statistics import LoopTaken
from coolsd_rt.store.strict import Strict, read_model
from coolsd_rt.sweep.draw import DrawnPoint
from coolsd_rt.sweep.spec import Point

NOT_A_BENCHMARK = "drawn once, while other work ran; use coolsd-rt bench for timing"


class _Closed(Strict):
    def text(self) -> bytes:
        """Return the content of the file."""
        return (self.model_dump_json(indent=2) + "\n").encode()


class Speed(_Closed):
    """Time that drawing took, and the loop that ran. Not a benchmark."""

    tokens_per_second: float
    seconds: float
    loop: LoopTaken | None
    note: str = NOT_A_BENCHMARK


class PointResult(_Closed):
    """The figures of one point. `lossless`: the output distribution is the target's by construction."""

    name: str
    series: str
    axes: dict[str, Any]
    plain: bool
    lossless: bool
    omegas: list[float]
    rule: str
    resampler: str
    images: int
    rounds: int
    mean_acceptance_length: Figure
    acceptance_by_position: list[float | None]
    degenerate_residuals: int
    tokens_per_pass: float | None = None  # of a file of before: unknown
    distance_per_token: float | None = None
    quality: dict[str, Figure]
    speed: Speed

    @staticmethod
    def of(point: Point, law: Law, drawn: DrawnPoint, quality: dict[str, Figure]) -> PointResult:
        """Collect the figures of a point. quality: measure name to figure."""
        s = drawn.statistics
        return PointResult(
            name=point.name,
            series=point.series,
            axes=point.axes,
            plain=point.plain,
            lossless=is_lossless(law),
            omegas=list(law.omegas),
            rule=law.rule,
            resampler=law.resampler,
            images=len(drawn.images),
            rounds=int(s.rounds.sum()),
            mean_acceptance_length=drawn.accept_length,
            acceptance_by_position=[None if math.isnan(a) else a for a in s.acceptance_by_position],
            degenerate_residuals=s.degenerate,
            tokens_per_pass=s.tokens_per_pass,
            distance_per_token=s.distance_per_token,
            quality=quality,
            speed=Speed(tokens_per_second=drawn.tokens_per_second, seconds=drawn.seconds, loop=drawn.loop),
        )


class Results(_Closed):
    """The contents of results.json.

    pareto: measure name to the names of the points on the front, by rising accept length.
    """

    version: Literal[1] = 1
    engine: str
    points: list[PointResult]
    pareto: dict[str, list[str]]

    @staticmethod
    def of(engine: str, points: Sequence[PointResult]) -> Results:
        """Collect the figures of all points, and compute the Pareto front of each measure."""
        pareto = {}
        for kind in kinds_of(points):
            lengths = [p.mean_acceptance_length.value for p in points]
            values = [p.quality[kind.name].value for p in points]
            pareto[kind.name] = [points[i].name for i in front(lengths, values, kind.lower_is_better)]
        return Results(engine=engine, points=list(points), pareto=pareto)


def kinds_of(points: Sequence[PointResult]) -> list[Kind]:
    """Return the measures that all points have, in a fixed order."""
    return [kind for name, kind in KINDS.items() if points and all(name in point.quality for point in points)]


def is_lossless(law: Law) -> bool:
    """Whether the output distribution is the target's for any P and Q: no relaxation, and an exact residual."""
    if law.rule == "synthetic":
        return False
    if law.refinements is not None:
        return law.refinements >= law.length
    if law.tolerance is not None:
        neutral: Mapping[str, float] = {"lantern": 0.0, "lantern_pp": 1.0}
        return law.tolerance.bound == neutral[law.tolerance.kind] and law.resampler in ("optimal", "waterfill")
    if law.resampler in ("optimal", "waterfill"):
        return all(omega <= 1 for omega in law.omegas)
    return law.resampler == "residual" and all(omega == 1 for omega in law.omegas)


def read_point(path: Path) -> PointResult:
    """Read a finished point. Raises CoolsdError if the file is not a point's result."""
    return read_model(path, PointResult, "a finished point of a sweep", RESULT_BYTES, fix="remove it")
