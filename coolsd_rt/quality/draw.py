"""Draws the images of a quality run: one PNG per id, batch by batch. Existing images are not drawn again.

    OUT/quality.json          what is drawn: engine, run-time values, prompts
    OUT/images/139.png        written atomically; its text chunk has id, prompt, seed, engine and law

Rounds draft a fixed length, also if the spec's pacing is `auto`: figures must not depend on a machine's speed. An image
depends only on its id, its prompt and `--seed`: not on the order of the prompts or on an interruption. Knows
engines through the workflows. Does not know what is measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from coolsd_rt import __version__, limits
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.metrics.gallery import Gallery
from coolsd_rt.metrics.metric import Figure
from coolsd_rt.prompts import Conditioner
from coolsd_rt.quality.captions import seed_offset
from coolsd_rt.runtime.statistics import LoopTaken, Statistics
from coolsd_rt.spec import Spec
from coolsd_rt.store.hashing import sha256_file
from coolsd_rt.store.results import claim
from coolsd_rt.sweep.draw import DrawnPoint
from coolsd_rt.workflows import drawing, opening, png, totals
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.generate.run import GenerateConfig, resolve, unknown_words
from coolsd_rt.workflows.opened import OpenedEngine

HEAD, IMAGES = "quality.json", "images"
_LOOPS: dict[Any, LoopTaken] = {"host": "host", "device": "device"}  # valid values in an image
_WINDOW = 256  # captions encoded at once; a text encoder's features take about a megabyte per caption


@dataclass(frozen=True)
class QualityCallbacks:
    """Callbacks that report progress.

    Attributes:
        warning: called with a line of text.
        start: called with the name of a stage and its number of images.
        step: called with the number of images finished since the last call.
    """

    warning: Callable[[str], None] = lambda line: None
    start: Callable[[str, int], None] = lambda stage, images: None
    step: Callable[[int], None] = lambda images: None


@dataclass(frozen=True)
class QualityPlan:
    """A checked request for images; nothing is loaded yet. `prompts` and `out` of `request` are ignored."""

    opened: OpenedEngine
    spec: Spec
    settings: Settings
    prompts: Mapping[str, str]  # canonical id to prompt, in order
    request: GenerateConfig

    @staticmethod
    def of(engine: str | Path, prompts: Mapping[str, str], request: GenerateConfig) -> QualityPlan:
        """Check a request.

        Raises UserError if there is no engine, the spec refuses a value, or acceptance is synthetic; CoolsdError if
        files are broken.
        """
        reading = opening.PromptInputs(request.features, request.text_encoder)
        opened = OpenedEngine.at(engine, reading, request.threads)
        opened.check_draws()
        spec = resolve(opened, request)
        if spec.acceptance.rule == "synthetic" and not request.plain:
            found = "synthetic, which draws no images of the model"
            raise UserError("acceptance.rule", expected="a rule of images", found=found, fix="give --rule ratio")
        if len(prompts) > limits.IMAGES.high:
            expected, found = f"at most {limits.IMAGES.high}", str(len(prompts))
            raise UserError("prompts", expected=expected, found=found, fix="give --limit")
        settings = opened.settings(spec, plain=request.plain)
        tokens = opened.description.dims.tokens
        if settings.law.length > tokens:
            expected, found = f"at most the image's {tokens} tokens", str(settings.law.length)
            raise UserError("the draft length", expected=expected, found=found)
        return QualityPlan(opened, spec, settings, prompts, request)

    @property
    def engine(self) -> dict[str, Any]:
        """Name and fingerprint of the engine, JSON data."""
        return {"name": self.opened.manifest.name, "fingerprint": self.opened.manifest.fingerprint}

    def head(self) -> dict[str, Any]:
        """Return everything that the images depend on, as JSON data."""
        request = self.request
        draft = {key: value for key, value in self.spec.resolved()["draft"].items() if key != "weights"}
        return {
            "version": 1,
            "engine": self.engine,
            "seed": request.seed,
            "plain": request.plain,
            "draft": draft,
            **self.spec.run_view(),
            "batch": self.spec.engine.max_batch,
            "features": None if request.features is None else sha256_file(request.features),
            "text_encoder": None if request.text_encoder is None else str(request.text_encoder),
            "prompts": dict(self.prompts),
        }

    def path(self, out: Path, name: str) -> Path:
        """Return the file of the image with id `name`."""
        return out / IMAGES / f"{name}.png"

    def batches(self) -> Iterator[Sequence[str]]:
        """Yield the ids of each batch.

        Batches do not depend on which images exist, so that an interruption changes no batch.
        """
        names, size = list(self.prompts), self.spec.engine.max_batch
        for start in range(0, len(names), size):
            yield names[start : start + size]


def draw(plan: QualityPlan, out: Path, listener: QualityCallbacks) -> Gallery:
    """Draw the images that `out` lacks. Loads the engine only if an image is missing.

    Raises UserError if the folder holds something else, or if the engine cannot read a prompt.
    """
    claimed, there = (out / HEAD).is_file(), out.is_dir()
    claim(out, HEAD, plan.head(), "images of this engine with these settings and prompts")
    todo = [names for names in plan.batches() if not all(plan.path(out, name).is_file() for name in names)]
    listener.start("drawing", len(plan.prompts))
    listener.step(len(plan.prompts) - sum(map(len, todo)))
    try:
        _draw(plan, out, todo, listener)
    except BaseException:
        if not claimed and not (out / IMAGES).is_dir():  # nothing was drawn: remove the folder
            (out / HEAD).unlink()
            if not there:
                out.rmdir()
        raise
    return Gallery({name: plan.path(out, name) for name in plan.prompts})


def _draw(plan: QualityPlan, out: Path, todo: Sequence[Sequence[str]], listener: QualityCallbacks) -> None:
    if not todo:
        return
    conditioner = plan.opened.conditioner
    window = len(todo) if not conditioner.features_dim else max(1, _WINDOW // len(todo[0]))
    for start in range(0, len(todo), window):
        part = todo[start : start + window]
        jobs = _jobs(plan, [name for names in part for name in names], conditioner)
        _warn(unknown_words(list(jobs.values())), listener)
        engine = plan.opened.engine
        for names in part:
            batch = [replace(jobs[name], index=k) for k, name in enumerate(names)]
            began = perf_counter()
            generation = drawing.draw(engine, batch, conditioner, plan.settings, loop="auto")
            decoded = np.asarray(engine.decode_images(generation.codes))
            seconds = (perf_counter() - began) / len(names)
            found = generation.statistics
            tokens = round(found.mean_acceptance_length * float(found.rounds.sum()) / len(names))
            for name, job, pixels, rounds in zip(names, batch, decoded, found.rounds.tolist(), strict=True):
                path = plan.path(out, name)
                if not path.is_file():
                    cost = {"rounds": rounds, "tokens": tokens, "seconds": seconds, "loop": generation.loop}
                    png.write_png(path.parent, path.name, pixels, _provenance(plan, name, job) | cost)
            listener.step(len(names))


def _jobs(plan: QualityPlan, names: Sequence[str], conditioner: Conditioner) -> dict[str, Job]:
    captions = [plan.prompts[name] for name in names]
    encoded = drawing.encode(captions, conditioner)
    seeds = [drawing.image_seed(plan.request.seed, seed_offset(name)) for name in names]
    rows = zip(names, captions, seeds, encoded, strict=True)
    return {name: Job(0, caption, seed, row) for name, caption, seed, row in rows}


def _warn(lines: Sequence[str], listener: QualityCallbacks, most: int = 3) -> None:
    for line in lines[:most]:
        listener.warning(line)
    if len(lines) > most:
        listener.warning(f"{len(lines) - most} more prompts have words that the model does not know")


def _provenance(plan: QualityPlan, name: str, job: Job) -> dict[str, Any]:
    """Return the data needed to draw the image again, as `generate` records it, and the id."""
    return {
        "version": __version__,
        "engine": plan.engine,
        "id": name,
        "prompt": job.prompt,
        "seed": job.seed,
        "law": plan.settings.law_as_dict(),
        "spec": plan.spec.resolved(),
    }


@dataclass(frozen=True)
class Cost:
    """The cost of drawing.

    Attributes:
        accept_length: tokens per round.
        seconds: wall time per image, drawing and decoding, at the engine's batch size.
        loop: the loop that drew the images.
    """

    accept_length: Figure
    seconds: float
    loop: LoopTaken | None


def cost(plan: QualityPlan, gallery: Gallery) -> Cost:
    """Return the figures stored in the images, and check that each file is the image that its name says.

    Raises CoolsdError if a file has another id, prompt or engine, or was not written by this package.
    """
    rows, loops = [], list[LoopTaken]()
    for name, path in gallery.paths.items():
        try:
            said = png.read_provenance(path) or {}
            row = [float(said[key]) for key in ("rounds", "tokens", "seconds")]
            loop = _LOOPS[said["loop"]]
        except (OSError, ValueError, KeyError, TypeError, SyntaxError, AttributeError, json.JSONDecodeError) as error:
            found = f"another file ({type(error).__name__})"
            raise CoolsdError(str(path), expected="an image of this run", found=found, fix="remove it") from error
        wanted = {"id": name, "prompt": plan.prompts[name], "engine": plan.engine}
        if odd := next((key for key, value in wanted.items() if said.get(key) != value), None):
            expected, found = f"the {odd} {wanted[odd]!r}", f"{said.get(odd)!r}"
            raise CoolsdError(str(path), expected=expected, found=found, fix="remove it; the same command draws it")
        rows.append(row)
        loops.append(loop)
    rounds, tokens, seconds = np.array(rows).T
    counts = Statistics.empty(0, 1)
    counts.rounds = rounds.astype(np.int64)
    counts.accepts[:] = int(tokens.sum() - rounds.sum())  # a round's tokens are its accepted drafts and one more
    taken = totals.one_loop(loops)
    as_drawn = DrawnPoint(np.zeros((0, 1, 1, 3), np.uint8), counts, float(seconds.sum()), int(tokens.sum()), taken)
    return Cost(as_drawn.accept_length, float(seconds.mean()), taken)
