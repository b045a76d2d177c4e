"""The result of a request: its images and figures. Pure data; knows neither engines nor the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coolsd_rt.runtime.statistics import LoopTaken, Statistics
from coolsd_rt.workflows.drawing import Job
from coolsd_rt.workflows.plans import DraftPlan


@dataclass(frozen=True)
class GeneratedImage:
    """One image of the request. `written` is False if the file already held the image and was left unchanged."""

    path: Path
    job: Job
    written: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {
            "path": str(self.path),
            "prompt": self.job.prompt,
            "seed": self.job.seed,
            "unknown_words": list(self.job.unknown),
            "status": "written" if self.written else "skipped",
        }


def seconds_by_phase(statistics: Statistics, loop: LoopTaken | None, seconds: float) -> dict[str, float | None]:
    """Return wall time by phase; `other` is the rest of the total `seconds`.

    A phase that the loop does not measure is None.
    """
    parts = statistics.seconds_by_phase(loop)
    return {**parts, "other": seconds - sum(parts[phase] or 0.0 for phase in parts if phase != "other")}


@dataclass(frozen=True)
class GenerateReport:
    """The figures of a request. Times are wall seconds; the known phases add up to `seconds`.

    Skipped images are in `drawn` but in no figure; if all images were skipped, rates are NaN.

    Attributes:
        loop: the loop that ran; None if nothing was drawn. The host's loop measures target, draft and law separately; a
            device's loop measures only its total, `seconds_device`.
        seconds_image: time of the condition graph, the image graph and the allocation of caches. It is part of the
            phase "other", which also includes prompts, image decoding, files and Python.
        seconds_load: time to load the engine. Neither it nor the time of trials of plans is part of `seconds`.
        plan: how rounds drafted under pacing `auto`; None under `manual` and in plain decoding.
    """

    drawn: tuple[GeneratedImage, ...]
    sheet: Path | None
    tokens: int
    seconds: float
    seconds_image: float
    seconds_load: float
    statistics: Statistics
    loop: LoopTaken | None
    warnings: tuple[str, ...]
    plan: DraftPlan | None = None

    @property
    def tokens_per_second(self) -> float:
        """Image tokens per wall second; NaN if nothing was drawn."""
        return self.tokens / self.seconds if self.tokens else float("nan")

    @property
    def written(self) -> int:
        """Number of images that this run drew."""
        return sum(one.written for one in self.drawn)

    @property
    def seconds_by_phase(self) -> dict[str, float | None]:
        """Wall seconds by phase; None for a phase that the loop does not measure."""
        return seconds_by_phase(self.statistics, self.loop, self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document of `generate --json`."""
        s = self.statistics
        return {
            "images": [d.as_dict() for d in self.drawn],
            "sheet": str(self.sheet) if self.sheet else None,
            "loop": self.loop,
            "plan": None if self.plan is None else self.plan.as_dict(),
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
            "mean_acceptance_length": s.mean_acceptance_length,
            "tokens_per_pass": s.tokens_per_pass,
            "distance_per_token": s.distance_per_token,
            "acceptance_by_position": s.acceptance_by_position,
            "rounds": int(s.rounds.sum()),
            "degenerate_residuals": s.degenerate,
            **{f"seconds_{phase}": value for phase, value in self.seconds_by_phase.items()},
            "seconds_image": self.seconds_image,
            "seconds_load": self.seconds_load,
            "warnings": list(self.warnings),
        }
