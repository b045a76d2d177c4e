"""The main job: a built engine and prompts in, PNG files and figures out.

    1. Open: find the engine's manifest, lay the request's run-time values over its spec.
    2. Check: every file's hash, then load the engine.
    3. Encode the prompts; words that the model never saw are reported and drawn anyway.
    4. For each batch of at most `engine.max_batch` pictures: prefix, rounds, paint, one PNG a picture.
    5. A contact sheet if there are several, and the figures of all of it.

Knows requests and files. Does not know which backend steps (`opening` does) or how a terminal shows anything. Needs
neither torch nor onnx.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coolsd_rt import __version__
from coolsd_rt.errors import UserError
from coolsd_rt.models.conditions import Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.runtime.round import generate as rounds
from coolsd_rt.runtime.statistics import PHASES, Statistics
from coolsd_rt.spec import Spec, with_jacobi, with_overrides
from coolsd_rt.spec.fields import DraftLength, Flag, Pictures, Seed, Threads, check_fields
from coolsd_rt.store import EngineFolder, Manifest, open_engine
from coolsd_rt.store.atomic import check_folder, disk_errors
from coolsd_rt.workflows import drawing, opening, pictures
from coolsd_rt.workflows.drawing import JACOBI_WINDOW, Job, Settings

DRAFTS = ("jacobi", "jacobi-coupled")  # what can take the place of a built draft
_WIDEST_ROW = 12  # pictures of one prompt that the sheet still shows as one row


@dataclass(frozen=True)
class Request:
    """What a user asks for. Each field is checked as it is made; what depends on the engine, where that is known.

    variants: pictures per prompt. overrides: run-time spec keys (`schedule.delta`) and their values. draft_length:
    another draft length than the built one; None is the built one. plain: decode without a draft. draft: one of
    `DRAFTS` in the place of the spec's; None is the spec's. threads: of the engine; None is the usable cores.
    features, text_encoder: a file of precomputed features and a text encoder's folder in the place of the spec's.
    """

    prompts: Sequence[str]
    out: Path = Path("out")
    variants: Pictures = 1
    seed: Seed = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    draft_length: DraftLength | None = None
    plain: Flag = False
    threads: Threads | None = None
    draft: str | None = None
    features: Path | None = None
    text_encoder: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Listener:
    """Who wants to hear of the work while it goes on."""

    warning: Callable[[str], None] = lambda line: None
    start: Callable[[int], None] = lambda tokens: None  # image tokens of the whole request
    tokens: Callable[[int, float], None] = lambda done, accept_length: None  # so far, of the whole request
    picture: Callable[[Path], None] = lambda path: None  # a file that is whole


@dataclass(frozen=True)
class Drawn:
    """One finished picture."""

    path: Path
    job: Job

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "prompt": self.job.prompt,
            "seed": self.job.seed,
            "unknown_words": list(self.job.unknown),
        }


@dataclass(frozen=True)
class Report:
    """The figures of a request. Times are wall seconds; the four phases add up to `seconds`.

    `seconds_other` is everything but target, draft and law: prompt encoding, painting, files, Python.
    `seconds_image` is the part of it that the condition and image graphs and fresh caches took. Loading the engine is
    in none of them.
    """

    drawn: tuple[Drawn, ...]
    sheet: Path | None
    tokens: int
    seconds: float
    seconds_image: float
    seconds_load: float
    statistics: Statistics
    warnings: tuple[str, ...]

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def seconds_by_phase(self) -> dict[str, float]:
        parts = {phase: self.statistics.seconds[phase] for phase in PHASES if phase != "other"}
        return {**parts, "other": self.seconds - sum(parts.values())}

    def as_dict(self) -> dict[str, Any]:
        """The document of `generate --json`."""
        s = self.statistics
        return {
            "images": [d.as_dict() for d in self.drawn],
            "sheet": str(self.sheet) if self.sheet else None,
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


def resolve(folder: EngineFolder, request: Request) -> Spec:
    """The engine's spec with the request's run-time values. Raises UserError on any that the spec refuses."""
    spec = opening.spec_of(folder)
    if request.plain:
        told = [k for k in request.overrides if k.startswith(("schedule.", "resampler.", "acceptance.", "pacing."))]
        if told or request.draft_length is not None or request.draft is not None:
            found = told[0] if told else "a draft" + (" length" if request.draft is None else "")
            raise UserError("plain decoding", expected="no draft and nothing about one", found=found, fix="drop one")
    if request.draft is not None:
        if request.draft not in DRAFTS:
            raise UserError("the draft", expected=f"one of {', '.join(DRAFTS)}", found=request.draft)
        length = request.draft_length
        if length is None:
            length = min(JACOBI_WINDOW, opening.description_of(folder).dims.tokens)
        spec = with_jacobi(spec, length, coupled=request.draft == DRAFTS[1])
    elif request.draft_length is not None:
        draft = spec.draft.model_copy(update={"length": request.draft_length})
        spec = spec.model_copy(update={"draft": draft})
    return with_overrides(spec, request.overrides)


def generate(engine: str | Path, request: Request, listener: Listener | None = None) -> Report:
    """Draw a request with a built engine (`engines/NAME` or a fingerprint's folder).

    Pictures are written batch by batch, each whole or not at all: after an error or Ctrl-C the ones reported to
    `listener.picture` stay.

    Raises:
        UserError: no engine, a bad value, an empty prompt; before anything is loaded where that is possible.
        CoolsdError: a broken engine, a full disk.
    """
    listener = listener or Listener()
    check_folder(request.out)
    folder = open_engine(engine)
    spec = resolve(folder, request)
    began = time.perf_counter()
    verified = folder.verified()
    conditioner = opening.load_conditioner(verified, opening.Reading(request.features, request.text_encoder))
    jobs = drawing.plan(request.prompts, request.variants, request.seed, conditioner)
    forced = opening.load_forced(folder)
    settings = drawing.settings_of(spec, opening.load_neighbours(verified), forced=forced, plain=request.plain)
    warnings = (*unknown_words(jobs), *([SYNTHETIC] if settings.law.rule == "synthetic" else []))
    for line in warnings:
        listener.warning(line)
    loaded = opening.load_engine(verified, request.threads)
    load = time.perf_counter() - began
    with _folder(request.out):
        run = _Run(loaded, conditioner, folder.manifest, spec, settings, request, listener, jobs)
        return run.report(load, warnings)


SYNTHETIC = "acceptance is synthetic: these are timings, not pictures of the model"


def unknown_words(jobs: Sequence[Job]) -> tuple[str, ...]:
    """One line for each prompt with words that the model never saw."""
    lines = {
        job.prompt: f"{job.prompt!r}: the model does not know {', '.join(dict.fromkeys(job.unknown))}; drawn anyway"
        for job in jobs
        if job.unknown
    }
    return tuple(lines.values())


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[None]:
    """The output folder, made before any work is done; removed again if it was made here and stayed empty."""
    new = not out.exists()
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()


class _Run:
    """One request on its way through the batches."""

    def __init__(
        self,
        engine: Engine,
        conditioner: Conditioner,
        manifest: Manifest,
        spec: Spec,
        settings: Settings,
        request: Request,
        listener: Listener,
        jobs: Sequence[Job],
    ) -> None:
        self.engine, self.conditioner, self.manifest = engine, conditioner, manifest
        self.spec, self.request, self.listener, self.jobs = spec, request, listener, jobs
        self.settings = settings
        self.tokens = engine.dims.tokens
        self.drawn: list[Drawn] = []
        self.pixels: list[pictures.Pixels] = []
        self.parts: list[Statistics] = []
        self.seconds_image = 0.0
        if self.settings.law.length > self.tokens:
            found = str(self.settings.law.length)
            raise UserError("the draft length", expected=f"at most the image's {self.tokens} tokens", found=found)

    def report(self, load: float, warnings: tuple[str, ...]) -> Report:
        began = time.perf_counter()
        self.listener.start(len(self.jobs) * self.tokens)
        for batch in drawing.batches(self.jobs, self.spec.engine.max_batch):
            self.batch(batch)
        sheet = self.sheet()
        seconds = time.perf_counter() - began
        statistics = drawing.total(self.parts, self.settings.law.length)
        count = len(self.jobs) * self.tokens
        return Report(tuple(self.drawn), sheet, count, seconds, self.seconds_image, load, statistics, warnings)

    def batch(self, jobs: Sequence[Job]) -> None:
        """Draw, paint and write one batch."""
        before = len(self.drawn) * self.tokens

        def on_progress(done: int, accept_length: float) -> None:
            self.listener.tokens(before + done, accept_length)

        engine, settings = self.engine, self.settings
        began = time.perf_counter()
        session = drawing.open_session(engine, jobs, self.conditioner, settings)
        self.seconds_image += time.perf_counter() - began
        seeds = [job.seed for job in jobs]
        generation = rounds(
            session, settings.law, settings.sampling, seeds, settings.forced, source=settings.source,
            on_progress=on_progress,
        )  # fmt: skip
        self.parts.append(generation.statistics)
        del session  # its caches go before the painter needs room
        began = time.perf_counter()
        painted = engine.paint(generation.codes)
        self.seconds_image += time.perf_counter() - began
        for job, pixels in zip(jobs, painted, strict=True):
            name = pictures.file_name(job.index, len(self.jobs), job.prompt)
            path = pictures.write_png(self.request.out, name, pixels, self.provenance(job))
            self.drawn.append(Drawn(path, job))
            self.pixels += [pixels] if len(self.pixels) < pictures.SHEET_LIMIT else []
            self.listener.picture(path)

    def sheet(self) -> Path | None:
        """The contact sheet, for several pictures: a row a prompt if each has a few, else about square."""
        if len(self.drawn) < 2:
            return None
        captions = [d.job.prompt for d in self.drawn[: len(self.pixels)]]
        variants = self.request.variants
        page = pictures.sheet(self.pixels, captions, variants if 1 < variants <= _WIDEST_ROW else 0)
        return pictures.write_png(self.request.out, pictures.SHEET, page)

    def provenance(self, job: Job) -> dict[str, Any]:
        """What it takes to draw this picture again: with `--seed` its seed and -n 1."""
        return {
            "version": __version__,
            "engine": {"name": self.manifest.name, "fingerprint": self.manifest.fingerprint},
            "prompt": job.prompt,
            "seed": job.seed,
            "law": self.settings.law_as_dict(),
            "spec": self.spec.resolved(),
        }
