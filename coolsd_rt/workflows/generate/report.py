"""The result of a request: its images and the figures of drawing them. Pure data; knows no engine and no terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coolsd_rt.runtime.statistics import LoopTaken, Statistics
from coolsd_rt.workflows.drawing import Job


@dataclass(frozen=True)
class GeneratedImage:
    """One image of the request. written: by this run; else the file was that image already, and was left."""

    path: Path
    job: Job
    written: bool = True

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "prompt": self.job.prompt,
            "seed": self.job.seed,
            "unknown_words": list(self.job.unknown),
            "status": "written" if self.written else "skipped",
        }


def seconds_by_phase(statistics: Statistics, loop: LoopTaken | None, seconds: float) -> dict[str, float | None]:
    """Wall time by phase; `other` is what is left of `seconds`, all of them. None: the loop that ran does not tell."""
    parts = statistics.seconds_by_phase(loop)
    return {**parts, "other": seconds - sum(parts[phase] or 0.0 for phase in parts if phase != "other")}


@dataclass(frozen=True)
class GenerateReport:
    """The figures of a request. Times are wall seconds; the phases add up to `seconds`, those that are known.

    Images that were skipped are in `drawn` and in no figure: of a request that skips all, rates are NaN.

    loop: which loop ran; None where nothing was drawn. The host's tells target, draft and law apart; of a device's only
    the whole is known, `seconds_device`. `seconds_other` is everything else: prompts, image decoding,
    files, Python.
    `seconds_image` is the part of it that the condition and image graphs and fresh caches took. Loading the engine is
    in none of them.
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

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.tokens else float("nan")

    @property
    def written(self) -> int:
        """Images that this run has drawn."""
        return sum(one.written for one in self.drawn)

    @property
    def seconds_by_phase(self) -> dict[str, float | None]:
        """None: the loop that ran does not tell."""
        return seconds_by_phase(self.statistics, self.loop, self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """The document of `generate --json`."""
        s = self.statistics
        return {
            "images": [d.as_dict() for d in self.drawn],
            "sheet": str(self.sheet) if self.sheet else None,
            "loop": self.loop,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
            "mean_acceptance_length": s.mean_acceptance_length,
            "acceptance_by_position": s.acceptance_by_position,
            "rounds": int(s.rounds.sum()),
            "degenerate_residuals": s.degenerate,
            **{f"seconds_{phase}": value for phase, value in self.seconds_by_phase.items()},
            "seconds_image": self.seconds_image,
            "seconds_load": self.seconds_load,
            "warnings": list(self.warnings),
        }
