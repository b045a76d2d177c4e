"""The main workflow: takes a built engine and prompts, writes PNG files, returns figures.

    1. Open: find the engine's manifest, lay the request's run-time values over its spec, check every file's hash.
    2. Name the files (`placing`): an image that is there already is skipped, a name with anything else is refused.
    3. Encode the prompts; words that the model never saw are reported and drawn anyway. Load the engine.
    4. For each batch of at most `engine.max_batch` images: prefix, rounds, decode_images, one PNG an image.
    5. A contact sheet if there are several, and the figures of what was drawn.

Knows requests and the order of work. Does not know which backend steps (`opening` does) or how a terminal shows
anything. Needs neither torch nor onnx.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coolsd_rt.arrays import Pixels
from coolsd_rt.prompts import Conditioner, Encoded
from coolsd_rt.runtime.progress import Progress
from coolsd_rt.runtime.statistics import Generation
from coolsd_rt.spec.fields import DraftLength, Flag, Images, Seed, Threads, check_fields
from coolsd_rt.store.atomic import check_folder
from coolsd_rt.workflows import drawing, opening, png, totals
from coolsd_rt.workflows.batches import DrawnBatch, draw_batches
from coolsd_rt.workflows.drawing import Job
from coolsd_rt.workflows.generate import placing
from coolsd_rt.workflows.generate.placing import Placed
from coolsd_rt.workflows.generate.report import GeneratedImage, GenerateReport
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.prepared import DRAFTS, SYNTHETIC, Prepared, resolve, unknown_words

__all__ = ["DRAFTS", "SYNTHETIC", "GenerateCallbacks", "GenerateConfig", "generate", "resolve", "unknown_words"]


@dataclass(frozen=True)
class GenerateConfig:
    """A user's request. Each field is checked on construction; values that depend on the engine are checked when it is
    known.

    variants: images per prompt. overrides: run-time spec keys (`schedule.delta`) and their values. draft_length:
    another draft length than the built one; None is the built one. plain: decode without a draft. draft: one of
    `DRAFTS` in the place of the spec's; None is the spec's. threads: of the engine; None is the usable cores.
    features, text_encoder: a file of precomputed features and a text encoder's folder in the place of the spec's.
    overwrite: draw every image, and replace files that have their names.
    """

    prompts: Sequence[str]
    out: Path = Path("out")
    variants: Images = 1
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
class GenerateCallbacks:
    """Callbacks that report progress during the work."""

    warning: Callable[[str], None] = lambda line: None
    start: Callable[[int], None] = lambda tokens: None  # image tokens of all that is to be drawn
    tokens: Callable[[int, float], None] = lambda done, accept_length: None  # so far
    image: Callable[[Path], None] = lambda path: None  # a file that is whole
    skipped: Callable[[Path], None] = lambda path: None  # one that was there already


def generate(engine: str | Path, request: GenerateConfig, listener: GenerateCallbacks | None = None) -> GenerateReport:
    """Draw a request with a built engine (`engines/NAME` or a fingerprint's folder).

    Images are written batch by batch, each whole or not at all: after an error or Ctrl-C the ones reported to
    `listener.image` stay, and the same request goes on after them. No file is replaced but a damaged one of the same
    image and a contact sheet of ours, unless `request.overwrite` is on.

    Raises:
        UserError: no engine, a bad value, an empty prompt, a name that another file has; before anything is loaded
            where that is possible.
        CoolsdError: a broken engine, a full disk.
    """
    listener = listener or GenerateCallbacks()
    check_folder(request.out)
    began = time.perf_counter()
    opened = OpenedEngine.at(engine, opening.PromptInputs(request.features, request.text_encoder), request.threads)
    prepared = Prepared.of(opened, request)
    every = drawing.asked(request.prompts, request.variants, request.seed)
    placed = placing.place(request.out, every, prepared.provenance, request.overwrite)
    jobs = _jobs(placed, opened.conditioner)
    warnings = prepared.warnings(jobs)
    for line in warnings:
        listener.warning(line)
    if not all(one.there for one in placed):
        opened.load()  # now: what it takes is booked apart from drawing
    load = time.perf_counter() - began
    with placing.output_folder(request.out):
        return _GenerateRun(prepared, request, listener, placed).report(jobs, load, warnings)


def _jobs(placed: Sequence[Placed], conditioner: Conditioner) -> list[Job]:
    """A job for each image. What a text encoder would have to compute is left out of those that are not drawn."""
    cheap = not conditioner.features_dim
    wanted = [one.asked.prompt for one in placed if cheap or not one.there]
    encoded = dict(zip(wanted, drawing.encode(wanted, conditioner), strict=True))
    asked = [one.asked for one in placed]
    return [Job(one.index, one.prompt, one.seed, encoded.get(one.prompt, Encoded())) for one in asked]


class _GenerateRun:
    """One request on its way through the batches: each image to its file, at last the contact sheet."""

    def __init__(
        self, prepared: Prepared, request: GenerateConfig, listener: GenerateCallbacks, placed: Sequence[Placed]
    ) -> None:
        self.prepared, self.request, self.listener, self.placed = prepared, request, listener, placed
        self.tokens = prepared.opened.description.dims.tokens
        self.done = 0  # images drawn
        self.written: set[int] = set()  # indices of those that this run has put there
        self.pixels: dict[int, Pixels] = {}  # of those that the sheet shows, as far as they were drawn
        self.generations: list[Generation] = []
        self.seconds_image = 0.0

    def report(self, jobs: Sequence[Job], load: float, warnings: tuple[str, ...]) -> GenerateReport:
        """Draw and write what is missing. load: seconds that opening the engine took."""
        began = time.perf_counter()
        settings = self.prepared.settings
        todo = [job for job, one in zip(jobs, self.placed, strict=True) if not one.there]
        self.listener.start(len(todo) * self.tokens)
        for one in self.placed:
            if one.there:
                self.listener.skipped(one.path)
        for batch in draw_batches(self.prepared.opened, todo, settings, self.on_progress):
            self.write(batch)
        sheet = placing.finish_sheet(
            self.request.out, self.placed, self.request.variants, self.shown, self.request.overwrite
        )
        seconds = time.perf_counter() - began
        drawn = tuple(
            GeneratedImage(one.path, job, job.index in self.written) for one, job in zip(self.placed, jobs, strict=True)
        )
        statistics = totals.total([part.statistics for part in self.generations], settings.law.length)
        count = self.done * self.tokens
        loop = totals.one_loop(part.loop for part in self.generations)
        return GenerateReport(drawn, sheet, count, seconds, self.seconds_image, load, statistics, loop, warnings)

    def on_progress(self, jobs: Sequence[Job], progress: Progress) -> None:
        self.listener.tokens(self.done * self.tokens + progress.total, progress.mean_acceptance_length)

    def write(self, batch: DrawnBatch) -> None:
        """A batch's images to their files, each whole or not at all."""
        self.generations.append(batch.generation)
        self.seconds_image += batch.seconds_image
        self.done += len(batch.jobs)
        for job, pixels in zip(batch.jobs, batch.pixels, strict=True):
            one = self.placed[job.index]
            if job.index < png.SHEET_LIMIT:
                self.pixels[job.index] = pixels
            if placing.write_image(one, pixels, self.request.overwrite):
                self.written.add(job.index)
                self.listener.image(one.path)
            else:
                self.listener.skipped(one.path)

    def shown(self, one: Placed) -> Pixels:
        """An image for the sheet: as it was drawn, or from its file."""
        drawn = self.pixels.get(one.asked.index)
        return png.read_pixels(one.path) if drawn is None else drawn
