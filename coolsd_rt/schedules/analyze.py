"""Records an engine's rounds for `coolsd-rt analyze` and for everything else that computes on recordings.

Knows where prompts come from and how an engine is opened. Does not know what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law
from coolsd_rt.law.traces import RoundForecast
from coolsd_rt.schedules.analysis import Ambiguity, ambiguity, compare, schedules
from coolsd_rt.schedules.recording import FORMAT, LOOP, Noun, Recording, record
from coolsd_rt.spec import Spec, with_overrides
from coolsd_rt.spec.fields import Images, Seed, TextTokens, Threads, check_fields
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.drawing import Settings
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.texts import bounded

LOSSLESS: dict[str, Any] = {
    "schedule.kind": "none", "acceptance.rule": "ratio", "resampler.kind": "optimal", "pacing.confidence": 0.0,
    "pacing.draft_confidence": 0.0,
}  # fmt: skip
"""Run-time values of a recording: lossless, and every round has all its drafts."""


@dataclass(frozen=True)
class RecordingConfig:
    """What to record.

    The recording is lossless: each round starts at a prefix that the target itself drew.

    Attributes:
        images: number of images, or of texts.
        prompts: empty: the prompts beside the spec's vocabulary.
        folder: where the recording is stored; None stores nothing.
        spec_file: the present path of the spec, if it has moved since the build.
        threads: CPU threads; None is the usable cores.
        max_tokens: most tokens of a text; None: as many as the engine has. Not for images.
    """

    engine: Path
    images: Images = 16
    prompts: tuple[str, ...] = ()
    seed: Seed = 0
    folder: Path | None = None
    spec_file: Path | None = None
    threads: Threads | None = None
    reading: opening.PromptInputs | None = None
    max_tokens: TextTokens | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def open(self) -> OpenedEngine:
        """Open the engine. Raises UserError if there is none."""
        return OpenedEngine.at(self.engine, self.reading, self.threads, self.spec_file)


@dataclass(frozen=True)
class Analysis:
    """The figures of one recording. outlooks: schedule name to its forecast. noun: what `images` counts."""

    images: int
    rounds: int
    ambiguity: Ambiguity
    outlooks: dict[str, RoundForecast]
    noun: Noun = "images"

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document of `analyze --json`."""
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
            self.noun: self.images,
            "rounds": self.rounds,
            "loop": LOOP,
            **self.ambiguity.as_dict(),
            "schedules": laws,
        }


def _errors(found: RoundForecast) -> dict[str, float]:
    """Return standard errors with images as the observations; NaN for one image."""
    if found.images is None:
        return {}
    return {
        "mean_acceptance_length_error": found.images.accept_length.error,
        "kl_per_token_error": found.images.kl_per_token.error,
        "tv_bound_per_token_error": found.images.tv_bound_per_token.error,
    }


def noun_of(spec: Spec) -> Noun:
    """Return what an engine of this spec makes."""
    return "texts" if spec.writes == "text" else "images"


def recorded(
    request: RecordingConfig, on_batch: Callable[[int, int], None] = lambda done, of: None
) -> tuple[Recording, Spec]:
    """Record an engine's lossless rounds. Returns the recording and the spec that the engine was built from.

    Raises UserError if there is no engine, no prompt, or the folder has another recording; CoolsdError: a broken
    engine.
    """
    opened = request.open()
    spec = with_overrides(opened.spec, LOSSLESS)
    conditioner = opened.conditioner
    texts: Sequence[str] = request.prompts or opened.default_prompts()
    settings = _settings(opened, spec, request)
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
        **({} if settings.bounds is None else {"max_tokens": settings.bounds.limit}),
    }
    on_batch(0, len(batches))
    whole = record(
        engine, batches, conditioner, settings, request.folder, head, lambda done: on_batch(done, len(batches))
    )
    return whole, spec


def _settings(opened: OpenedEngine, spec: Spec, request: RecordingConfig) -> Settings:
    """Return the loop's settings, with the request's most tokens of a text. Raises UserError if it draws images.

    Rounds of a chain are recorded, also where the spec drafts a tree: schedules are computed for chains alone.
    """
    settings = replace(opened.settings(spec), tree=None)
    if spec.writes == "text":
        return bounded(opened, settings, request.max_tokens)
    if request.max_tokens is not None:
        expected, found = "an engine that writes text", f"{request.engine}, which draws images"
        raise UserError("max tokens", expected=expected, found=found, fix="leave it out")
    return settings


def _own_law(request: RecordingConfig, length: int) -> Law | None:
    """Return the law of the given spec, else of the engine's; None if the recording cannot predict its effect.

    length: the recording's draft length.
    """
    opened = request.open()
    spec = opened.find_spec().spec if request.spec_file else opened.spec
    merged = spec.writes == "text"
    # Merged codes have no neighbours, and a window that is judged as a whole is not what was recorded.
    odd = ("synthetic", "per_position", *(("lantern", "lantern_pp") if merged else ()))
    if spec.acceptance.rule in odd or spec.draft.length != length:
        return None
    return opened.settings(spec).law


def analyze(request: RecordingConfig, on_batch: Callable[[int, int], None] = lambda done, of: None) -> Analysis:
    """Record and compute the figures. Raises as `recorded` does."""
    recording, spec = recorded(request, on_batch)
    rounds = len(recording.accepted)
    grid = None if spec.writes == "text" else int(request.open().description.dims.tokens ** 0.5)
    laws = schedules(spec.draft.length)
    if (own := _own_law(request, spec.draft.length)) is not None and own not in laws.values():
        laws["as the spec has it"] = own
    outlooks = compare(recording, laws)
    return Analysis(request.images, rounds, ambiguity(recording, grid), outlooks, noun_of(spec))
