"""The main workflow: takes a built engine and prompts, writes PNG files, returns figures.

    1. Open the engine: read its manifest, apply the request's run-time values to its spec. The hash of each file is
       verified before it is parsed.
    2. Assign file names (`placing`): skip images that exist already, fail if another file has a name.
    3. Encode the prompts, with a warning for words that the model does not know. Load the engine, without the graphs
       that the request does not use; the image decoder is loaded when the first image is to be decoded.
    4. Draw at most `engine.max_batch` images at once; when one is finished, the next one enters. Each is decoded and
       written to a PNG at once.
    5. Write a contact sheet if there are several images, and return the figures.

Knows requests and the order of the steps. Does not know the backend (`opening` does) or how a terminal shows anything.
Needs neither torch nor onnx.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coolsd_rt.arrays import Pixels
from coolsd_rt.prompts import Conditioner, Encoded
from coolsd_rt.runtime.progress import Progress
from coolsd_rt.spec.fields import DraftLength, Flag, Images, Seed, Threads, check_fields
from coolsd_rt.store.atomic import check_folder
from coolsd_rt.workflows import drawing, opening, png
from coolsd_rt.workflows.drawing import Job
from coolsd_rt.workflows.generate import placing
from coolsd_rt.workflows.generate.placing import Placed
from coolsd_rt.workflows.generate.report import GeneratedImage, GenerateReport
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.prepared import DRAFTS, SYNTHETIC, Prepared, resolve, unknown_words
from coolsd_rt.workflows.slots import DecodedImage, JobsDrawing

__all__ = ["DRAFTS", "SYNTHETIC", "GenerateCallbacks", "GenerateConfig", "generate", "resolve", "unknown_words"]


@dataclass(frozen=True)
class GenerateConfig:
    """A request of the user.

    Fields are checked on construction; values that depend on the engine are checked once it is open.

    Attributes:
        variants: images per prompt.
        overrides: run-time spec keys (`schedule.delta`) and their values.
        draft_length: draft length; None is the built one.
        plain: decode without a draft.
        draft: one of `DRAFTS`, replaces the spec's draft; None keeps it.
        threads: CPU threads of the engine; None is the usable cores.
        features: file of precomputed features, replaces the spec's.
        text_encoder: folder of a text encoder, replaces the spec's.
        overwrite: draw every image and replace existing files.
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
    """Callbacks that report progress.

    Attributes:
        warning: called with a line of text.
        start: called with the number of image tokens to draw.
        tokens: called with the tokens decided so far and the mean acceptance length.
        image: called with the path of each complete file.
        skipped: called with the path of each image that existed already.
        measuring: called with the images at once before drafts are tried (pacing auto, once for a kind of request).
    """

    warning: Callable[[str], None] = lambda line: None
    start: Callable[[int], None] = lambda tokens: None  # image tokens in total
    tokens: Callable[[int, float], None] = lambda done, accept_length: None
    image: Callable[[Path], None] = lambda path: None  # written
    skipped: Callable[[Path], None] = lambda path: None  # existed already
    measuring: Callable[[int], None] = lambda images: None


def generate(engine: str | Path, request: GenerateConfig, listener: GenerateCallbacks | None = None) -> GenerateReport:
    """Draw a request with a built engine (`engines/NAME` or the folder of a fingerprint).

    Images are written as they are finished, each atomically. After an error or Ctrl-C, files that were reported to
    `listener.image` remain, and the same request continues after them. Only a damaged file of the same image or a
    contact sheet of this package is replaced, unless `request.overwrite` is set.

    Raises:
        UserError: no engine, a bad value, an empty prompt, or a name that another file has. Raised before anything is
            loaded where possible.
        CoolsdError: the engine is broken, or the disk is full.
    """
    listener = listener or GenerateCallbacks()
    check_folder(request.out)
    began = time.perf_counter()
    opened = OpenedEngine.at(engine, opening.PromptInputs(request.features, request.text_encoder), request.threads)
    opened.check_draws()
    prepared = Prepared.of(opened, request)
    every = drawing.asked(request.prompts, request.variants, request.seed)
    placed = placing.place(request.out, every, prepared.provenance, request.overwrite)
    jobs = _jobs(placed, opened.conditioner)
    warnings = prepared.warnings(jobs)
    for line in warnings:
        listener.warning(line)
    todo = [job for job, one in zip(jobs, placed, strict=True) if not one.there]
    if todo:
        prepared = prepared.recorded(len(jobs))
        opened.load(prepared.later_graphs)  # now, so that loading is timed separately from drawing
    load = time.perf_counter() - began
    prepared = prepared.planned(todo, len(jobs), on_choose=listener.measuring)
    if prepared.plan is not None:  # it was not known when the files were placed
        placed = [replace(one, said=prepared.provenance(one.asked)) for one in placed]
    with placing.output_folder(request.out):
        return _GenerateRun(prepared, request, listener, placed).report(jobs, load, warnings)


def _jobs(placed: Sequence[Placed], conditioner: Conditioner) -> list[Job]:
    """Return one job per image. Skipped images are not encoded if that would need a text encoder."""
    cheap = not conditioner.features_dim
    wanted = [one.asked.prompt for one in placed if cheap or not one.there]
    encoded = dict(zip(wanted, drawing.encode(wanted, conditioner), strict=True))
    asked = [one.asked for one in placed]
    return [Job(one.index, one.prompt, one.seed, encoded.get(one.prompt, Encoded())) for one in asked]


class _GenerateRun:
    """Draws the images of one request, writes each, and finally the contact sheet."""

    def __init__(
        self, prepared: Prepared, request: GenerateConfig, listener: GenerateCallbacks, placed: Sequence[Placed]
    ) -> None:
        self.prepared, self.request, self.listener, self.placed = prepared, request, listener, placed
        self.tokens = prepared.opened.description.dims.tokens
        self.written: set[int] = set()  # indices of the images that this run wrote
        self.pixels: dict[int, Pixels] = {}  # drawn images that the sheet shows
        self.done = 0  # images drawn

    def report(self, jobs: Sequence[Job], load: float, warnings: tuple[str, ...]) -> GenerateReport:
        """Draw and write the missing images. load: seconds that opening the engine took."""
        began = time.perf_counter()
        todo = [job for job, one in zip(jobs, self.placed, strict=True) if not one.there]
        self.listener.start(len(todo) * self.tokens)
        for one in self.placed:
            if one.there:
                self.listener.skipped(one.path)
        images = JobsDrawing(self.prepared.opened, todo, self.prepared.settings, self.on_progress)
        for image in images.run():
            self.write(image)
        sheet = placing.finish_sheet(
            self.request.out, self.placed, self.request.variants, self.shown, self.request.overwrite
        )
        return GenerateReport(
            tuple(
                GeneratedImage(one.path, job, job.index in self.written)
                for one, job in zip(self.placed, jobs, strict=True)
            ),
            sheet,
            self.done * self.tokens,
            time.perf_counter() - began - images.seconds_load,
            images.seconds_image,
            load + images.seconds_load,
            images.statistics,
            images.loop,
            warnings,
            self.prepared.plan,
        )

    def on_progress(self, jobs: Sequence[Job], progress: Progress) -> None:
        self.listener.tokens(self.done * self.tokens + progress.total, progress.mean_acceptance_length)

    def write(self, image: DecodedImage) -> None:
        """Write an image to its file, atomically."""
        job, one = image.job, self.placed[image.job.index]
        self.done += 1
        if job.index < png.SHEET_LIMIT:
            self.pixels[job.index] = image.pixels
        if placing.write_image(one, image.pixels, self.request.overwrite):
            self.written.add(job.index)
            self.listener.image(one.path)
        else:
            self.listener.skipped(one.path)

    def shown(self, one: Placed) -> Pixels:
        """Return the pixels of an image for the sheet: as drawn, or from its file."""
        drawn = self.pixels.get(one.asked.index)
        return png.read_pixels(one.path) if drawn is None else drawn
