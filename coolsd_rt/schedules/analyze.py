"""From an engine's path to a recording of it: `coolsd-rt analyze`, and what else computes on recordings.

Knows where prompts come from and how an engine is opened. Does not know what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coolsd_rt.law import Law
from coolsd_rt.law.traces import RoundForecast
from coolsd_rt.schedules.analysis import Ambiguity, ambiguity, compare, schedules
from coolsd_rt.schedules.recording import FORMAT, LOOP, Recording, record
from coolsd_rt.spec import Spec, with_overrides
from coolsd_rt.spec.fields import Images, Seed, Threads, check_fields
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.opened import OpenedEngine

LOSSLESS: dict[str, Any] = {
    "schedule.kind": "none", "acceptance.rule": "ratio", "resampler.kind": "optimal", "pacing.confidence": 0.0,
    "pacing.draft_confidence": 0.0,
}  # fmt: skip
"""Run-time values of a recording: rounds start where the target's own images go, and each has all its drafts."""


@dataclass(frozen=True)
class RecordingConfig:
    """What to record. prompts: none = those beside the spec's vocabulary. folder: where the recording is kept, or None.

    The recording is lossless: its rounds start where the target's own images go.
    """

    engine: Path
    images: Images = 16
    prompts: tuple[str, ...] = ()
    seed: Seed = 0
    folder: Path | None = None
    spec_file: Path | None = None
    threads: Threads | None = None
    reading: opening.PromptInputs | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def open(self) -> OpenedEngine:
        """Raises UserError: no engine."""
        return OpenedEngine.at(self.engine, self.reading, self.threads, self.spec_file)


@dataclass(frozen=True)
class Analysis:
    """The figures of one recording."""

    images: int
    rounds: int
    ambiguity: Ambiguity
    outlooks: dict[str, RoundForecast]

    def as_dict(self) -> dict[str, Any]:
        laws = {
            name: {
                "mean_acceptance_length": o.accept_length,
                "kl_per_token": o.kl_per_token,
                "tv_bound_per_token": o.tv_bound_per_token,
                **_errors(o),
                "acceptance_by_position": list(o.acceptance),
            }
            for name, o in self.outlooks.items()
        }
        return {
            "images": self.images,
            "rounds": self.rounds,
            "loop": LOOP,
            **self.ambiguity.as_dict(),
            "schedules": laws,
        }


def _errors(found: RoundForecast) -> dict[str, float]:
    """Standard errors, with images as the observations; NaN for one image."""
    if found.images is None:
        return {}
    return {
        "mean_acceptance_length_error": found.images.accept_length.error,
        "kl_per_token_error": found.images.kl_per_token.error,
        "tv_bound_per_token_error": found.images.tv_bound_per_token.error,
    }


def recorded(
    request: RecordingConfig, on_batch: Callable[[int, int], None] = lambda done, of: None
) -> tuple[Recording, Spec]:
    """Record an engine's lossless rounds, and the spec it was built from.

    Raises UserError: no engine, no prompts, a folder with another recording. CoolsdError: a broken engine.
    """
    opened = request.open()
    spec = with_overrides(opened.spec, LOSSLESS)
    conditioner = opened.conditioner
    texts: Sequence[str] = request.prompts or opened.default_prompts()
    jobs = drawing.spread_jobs(texts, request.images, request.seed, conditioner)
    batches = list(drawing.batches(jobs, spec.engine.max_batch))
    engine = opened.engine
    head = {
        "engine": opened.manifest.fingerprint,
        "prompts": [job.prompt for job in jobs],
        "seed": request.seed,
        **spec.run_view(),
        "batch": spec.engine.max_batch,
        "format": FORMAT,
    }
    settings = opened.settings(spec)
    on_batch(0, len(batches))
    whole = record(
        engine, batches, conditioner, settings, request.folder, head, lambda done: on_batch(done, len(batches))
    )
    return whole, spec


def _own_law(request: RecordingConfig, length: int) -> Law | None:
    """The law of the spec that was given, or else of the engine's; None where the recording cannot say what it does.

    length: the recording's draft length.
    """
    opened = request.open()
    spec = opened.find_spec().spec if request.spec_file else opened.spec
    if spec.acceptance.rule == "synthetic" or spec.resampler.kind == "lantern" or spec.draft.length != length:
        return None
    return opened.settings(spec).law


def analyze(request: RecordingConfig, on_batch: Callable[[int, int], None] = lambda done, of: None) -> Analysis:
    """Record and compute. Raises as `recorded`."""
    recording, spec = recorded(request, on_batch)
    rounds = len(recording.accepted)
    grid = int(request.open().description.dims.tokens ** 0.5)
    laws = schedules(spec.draft.length)
    if (own := _own_law(request, spec.draft.length)) is not None and own not in laws.values():
        laws["as the spec has it"] = own
    outlooks = compare(recording, laws)
    return Analysis(request.images, rounds, ambiguity(recording, grid), outlooks)
