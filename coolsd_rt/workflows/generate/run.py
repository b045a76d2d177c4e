"""The main job: a built engine and prompts in, PNG files and figures out.

    1. Open: find the engine's manifest, lay the request's run-time values over its spec, check every file's hash.
    2. Name the files (`placing`): an image that is there already is skipped, a name with anything else is refused.
    3. Encode the prompts; words that the model never saw are reported and drawn anyway. Load the engine.
    4. For each batch of at most `engine.max_batch` pictures: prefix, rounds, paint, one PNG a picture.
    5. A contact sheet if there are several, and the figures of what was drawn.

Knows requests and the order of work. Does not know which backend steps (`opening` does) or how a terminal shows
anything. Needs neither torch nor onnx.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from coolsd_rt import __version__
from coolsd_rt.errors import UserError
from coolsd_rt.prompts import Conditioner, Encoded, T5Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.runtime.progress import Progress
from coolsd_rt.runtime.statistics import LoopTaken, Statistics
from coolsd_rt.spec import Spec, with_jacobi, with_overrides
from coolsd_rt.spec.fields import DraftLength, Flag, Pictures, Seed, Threads, check_fields
from coolsd_rt.store import EngineFolder, Manifest, open_engine
from coolsd_rt.store.atomic import check_folder, disk_errors
from coolsd_rt.workflows import drawing, opening, png
from coolsd_rt.workflows.drawing import JACOBI_WINDOW, Asked, Job, Settings
from coolsd_rt.workflows.generate import placing
from coolsd_rt.workflows.generate.placing import Placed
from coolsd_rt.workflows.generate.report import Drawn, Report

DRAFTS = ("jacobi", "jacobi-coupled")  # what can take the place of a built draft
_WIDEST_ROW = 12  # pictures of one prompt that the sheet still shows as one row


@dataclass(frozen=True)
class Request:
    """What a user asks for. Each field is checked as it is made; what depends on the engine, where that is known.

    variants: pictures per prompt. overrides: run-time spec keys (`schedule.delta`) and their values. draft_length:
    another draft length than the built one; None is the built one. plain: decode without a draft. draft: one of
    `DRAFTS` in the place of the spec's; None is the spec's. threads: of the engine; None is the usable cores.
    features, text_encoder: a file of precomputed features and a text encoder's folder in the place of the spec's.
    overwrite: draw every image, and replace files that have their names.
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
    overwrite: Flag = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Listener:
    """Who wants to hear of the work while it goes on."""

    warning: Callable[[str], None] = lambda line: None
    start: Callable[[int], None] = lambda tokens: None  # image tokens of all that is to be drawn
    tokens: Callable[[int, float], None] = lambda done, accept_length: None  # so far
    picture: Callable[[Path], None] = lambda path: None  # a file that is whole
    skipped: Callable[[Path], None] = lambda path: None  # one that was there already


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
    `listener.picture` stay, and the same request goes on after them. No file is replaced but a damaged one of the same
    image and a contact sheet of ours, unless `request.overwrite` is on.

    Raises:
        UserError: no engine, a bad value, an empty prompt, a name that another file has; before anything is loaded
            where that is possible.
        CoolsdError: a broken engine, a full disk.
    """
    listener = listener or Listener()
    check_folder(request.out)
    folder = open_engine(engine)
    spec = resolve(folder, request)
    began = time.perf_counter()
    verified = folder.verified()
    conditioner = opening.load_conditioner(verified, opening.Reading(request.features, request.text_encoder))
    every = drawing.asked(request.prompts, request.variants, request.seed)
    forced = opening.load_forced(folder)
    settings = drawing.settings_of(spec, opening.load_neighbours(verified), forced=forced, plain=request.plain)
    say = partial(_provenance, folder.manifest, spec, settings, conditioner)
    placed = placing.place(request.out, every, say, request.overwrite)
    jobs = _jobs(placed, conditioner)
    warnings = (*unknown_words(jobs), *([SYNTHETIC] if settings.law.rule == "synthetic" else []))
    for line in warnings:
        listener.warning(line)
    todo = not all(one.there for one in placed)
    loaded = opening.load_engine(verified, request.threads) if todo else None
    load = time.perf_counter() - began
    with _folder(request.out):
        run = _Run(loaded, conditioner, spec, settings, request, listener, placed, jobs)
        return run.report(load, warnings)


def _jobs(placed: Sequence[Placed], conditioner: Conditioner) -> list[Job]:
    """A job for each image. What a text encoder would have to compute is left out of those that are not drawn."""
    cheap = not conditioner.features_dim
    wanted = [one.asked.prompt for one in placed if cheap or not one.there]
    encoded = dict(zip(wanted, drawing.encode(wanted, conditioner), strict=True))
    asked = [one.asked for one in placed]
    return [Job(one.index, one.prompt, one.seed, encoded.get(one.prompt, Encoded())) for one in asked]


def _provenance(
    manifest: Manifest, spec: Spec, settings: Settings, conditioner: Conditioner, one: Asked
) -> dict[str, Any]:
    """What it takes to draw an image again: with `--seed` its seed and -n 1."""
    origin = {"condition": conditioner.origin(one.prompt)} if isinstance(conditioner, T5Conditioner) else {}
    return {
        "version": __version__,
        "engine": {"name": manifest.name, "fingerprint": manifest.fingerprint},
        "prompt": one.prompt,
        "seed": one.seed,
        **origin,
        "law": settings.law_as_dict(),
        "spec": spec.resolved(),
    }


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
    """One request on its way through the batches. engine: None where nothing is to be drawn."""

    def __init__(
        self,
        engine: Engine | None,
        conditioner: Conditioner,
        spec: Spec,
        settings: Settings,
        request: Request,
        listener: Listener,
        placed: Sequence[Placed],
        jobs: Sequence[Job],
    ) -> None:
        self.engine, self.conditioner, self.settings = engine, conditioner, settings
        self.spec, self.request, self.listener = spec, request, listener
        self.placed, self.jobs = placed, jobs
        self.tokens = 0 if engine is None else engine.dims.tokens
        self.done = 0  # images drawn
        self.written: set[int] = set()  # indices of those that this run has put there
        self.pixels: dict[int, png.Pixels] = {}  # of those that the sheet shows, as far as they were drawn
        self.parts: list[Statistics] = []
        self.loops: list[LoopTaken] = []
        self.seconds_image = 0.0
        if engine is not None and self.settings.law.length > self.tokens:
            found = str(self.settings.law.length)
            raise UserError("the draft length", expected=f"at most the image's {self.tokens} tokens", found=found)

    def report(self, load: float, warnings: tuple[str, ...]) -> Report:
        began = time.perf_counter()
        todo = [job for job, one in zip(self.jobs, self.placed, strict=True) if not one.there]
        self.listener.start(len(todo) * self.tokens)
        for one in self.placed:
            if one.there:
                self.listener.skipped(one.path)
        if self.engine is not None:
            for batch in drawing.batches(todo, self.spec.engine.max_batch):
                self.batch(self.engine, batch)
        sheet = self.sheet()
        seconds = time.perf_counter() - began
        drawn = tuple(
            Drawn(one.path, job, job.index in self.written) for one, job in zip(self.placed, self.jobs, strict=True)
        )
        statistics = drawing.total(self.parts, self.settings.law.length)
        count = self.done * self.tokens
        loop = drawing.one_loop(self.loops)
        return Report(drawn, sheet, count, seconds, self.seconds_image, load, statistics, loop, warnings)

    def batch(self, engine: Engine, jobs: Sequence[Job]) -> None:
        """Draw, paint and write one batch."""
        before = self.done * self.tokens

        def on_progress(progress: Progress) -> None:
            self.listener.tokens(before + progress.total, progress.mean_acceptance_length)

        generation = drawing.draw(
            engine, jobs, self.conditioner, self.settings, loop="auto", on_progress=on_progress
        )  # fmt: skip
        self.parts.append(generation.statistics)
        self.loops.append(generation.loop)
        self.seconds_image += generation.statistics.seconds_prefix
        began = time.perf_counter()
        painted = engine.paint(generation.codes)
        self.seconds_image += time.perf_counter() - began
        self.done += len(jobs)
        for job, pixels in zip(jobs, painted, strict=True):
            one = self.placed[job.index]
            if job.index < png.SHEET_LIMIT:
                self.pixels[job.index] = pixels
            if placing.write_image(one, pixels, self.request.overwrite):
                self.written.add(job.index)
                self.listener.picture(one.path)
            else:
                self.listener.skipped(one.path)

    def sheet(self) -> Path | None:
        """The contact sheet, for several pictures: a row a prompt if each has a few, else about square."""
        out, variants = self.request.out, self.request.variants
        if len(self.placed) < 2:
            placing.drop_stale_sheet(out, self.placed)
            return None
        columns = variants if 1 < variants <= _WIDEST_ROW else 0
        return placing.write_sheet(out, self.placed, columns, self.shown, self.request.overwrite)

    def shown(self, one: Placed) -> png.Pixels:
        """An image for the sheet: as it was drawn, or from its file."""
        drawn = self.pixels.get(one.asked.index)
        return png.read_pixels(one.path) if drawn is None else drawn
