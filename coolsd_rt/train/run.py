"""Runs a training from a request to a trained draft.

    1. Load the target, frozen, and its prompts; hold some of them out.
    2. Encode the training images, or draw them with the target, unless they exist.
    3. Train; regularly measure the accept length on held-out images, and write a checkpoint.
    4. `out` always has the best weights so far; training stops when they no longer improve.

The batch, guidance and noise of a step depend on the step's number only, so that a resumed training gives exactly the
weights of an uninterrupted one. Knows the order of the steps. Does not know terminals.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor

from coolsd_rt.checkpoints.load import load_target
from coolsd_rt.cores import limit_torch
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import check_target
from coolsd_rt.law import make_omegas
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.store.atomic import disk_errors
from coolsd_rt.store.hashing import sha256_bytes, sha256_file
from coolsd_rt.train.acceptance import Acceptance
from coolsd_rt.train.before import CHECKPOINT, LOG, WRITTEN, check_before
from coolsd_rt.train.checkpoint import MISFITS, load_state, save_tree, unfit
from coolsd_rt.train.config import TrainCallbacks, TrainConfig, TrainProgress, TrainReport
from coolsd_rt.train.data import Data, batch_at, prepare
from coolsd_rt.train.draw_texts import lowered
from coolsd_rt.train.interrupt import held_back
from coolsd_rt.train.lessons import ImageLesson, Network, TextLesson
from coolsd_rt.train.loop import Ema, TrainSteps, optimizers
from coolsd_rt.train.networks import config_of, drafting, make_student, weights_bytes, write_bytes
from coolsd_rt.train.objective import Objective
from coolsd_rt.train.process import Process, here
from coolsd_rt.train.sinks import LinesSink, Sink, TensorBoardSink, WandbSink
from coolsd_rt.train.students import Example
from coolsd_rt.train.text_objective import TextObjective, frequent, most_frequent

EMA_DECAY = 0.99
WEIGHT_DECAY = 0.01
SPREAD = 0.5  # range of CFG in training around the spec's scale, relative to the scale minus 1
_REPORT_EVERY = 20


def train_draft(request: TrainConfig, listener: TrainCallbacks | None = None) -> TrainReport:
    """Train, or continue from a checkpoint, until the draft stops improving or all steps are done.

    Raises:
        UserError: wrong data, prompts, sizes or start; `out` or the checkpoint belongs to another training.
        CoolsdError: the disk is full, the folder is not writable, or the loss is not finite.
        MissingExtra: a package that the request needs is not installed.
        KeyboardInterrupt: Ctrl-C; a checkpoint of the last complete step was written before.
    """
    listener, began = listener or TrainCallbacks(), time.monotonic()
    limit_torch(request.threads)
    check_before(request)
    process = here(request.device)
    try:
        training = Training(request, process, listener if process.main else TrainCallbacks())
        stopped = training.run()
        return training.report(stopped, time.monotonic() - began)
    finally:
        process.close()


class Training:
    """A running training."""

    def __init__(self, request: TrainConfig, process: Process, listener: TrainCallbacks) -> None:
        self._request, self._process, self._listener = request, process, listener
        spec, path = request.loaded.spec, request.loaded.files["target.weights"]
        self._target = load_target(path).to(process.device)
        made = (request.kind, request.shape, self._target, request.start_from, request.seed, request.own_steps)
        network: Network = make_student(*made).network
        # Pacing is left out: it decides which rounds draft, and has no effect on what is trained.
        self._sampling = Sampling(**spec.sampling.model_dump())
        layout = self._target.cfg.layout
        request.loaded.check_length(layout.tokens)
        values = spec.schedule.model_dump(exclude={"kind"})
        self._omegas = make_omegas(spec.schedule.kind, spec.draft.length, **values)
        self._scales = torch.from_numpy(self._sampling.scales(layout.tokens)) if self._sampling.guided else None
        self._data: Data = prepare(request, self._target, self._sampling, process, listener)
        if request.draft_vocab is not None and isinstance(network, Eagle):
            ids = most_frequent(self._data.train.codes, self._target.cfg.vocab, request.draft_vocab)
            network = drafting(network, ids)
        network = network.to(process.device)
        self._lesson = self._make_lesson()
        self._check_batch()
        matrices = [p for n, p in network.named_parameters() if p.ndim == 2 and "embed" not in n and "output" not in n]
        self._steps = TrainSteps(
            network,
            optimizers(network, matrices, request.lr, WEIGHT_DECAY),
            Ema(network, EMA_DECAY),
            lr=request.lr,
            steps=request.steps,
            average=process.average,
        )
        self._best: dict[str, Any] = {}
        self._start: dict[str, Any] = {}
        self._stale = 0
        self._history: list[dict[str, Any]] = []
        self._recent: list[tuple[float, ...]] = []

    def run(self) -> Literal["steps", "patience"]:
        """Run all remaining steps. Returns the reason for stopping."""
        request, steps = self._request, self._steps
        with self._sinks() as sinks, held_back() as asked:
            if self._resume():
                self._listener.note(f"going on from step {steps.step}")
            else:
                self._measure(sinks)
                self._save()
            if self._stale >= request.patience:
                return "patience"
            for step in steps.remaining():
                self._step(step, sinks)
                if steps.step % request.every == 0 or steps.step == steps.steps:
                    self._measure(sinks)
                    self._save()
                    if self._stale >= request.patience:
                        return "patience"
                if self._process.agree(asked()):
                    self._save()
                    raise KeyboardInterrupt
        return "steps"

    def _step(self, step: int, sinks: list[Sink]) -> None:
        request, process = self._request, self._process
        numbers = batch_at(step, request.batch, len(self._data.train), request.seed)
        mine = slice(process.rank, None, process.count)
        example = self._data.train.example(numbers[mine], self._scale(step, mine), process.device)
        precise = request.precision == "fp32"
        with torch.autocast(process.device.type, torch.bfloat16, enabled=not precise):
            noise, generator = self._noise(step, mine, example), self._generator(step, 3)
            loss, tvs = self._lesson.loss(self._steps.model, example, request.depths, noise, generator)
        value = loss.item()
        if not math.isfinite(value):
            fix = "start again with a smaller --lr"
            raise CoolsdError(f"step {step + 1}: the loss", expected="a finite number", found=str(value), fix=fix)
        self._steps.descend(loss)
        self._recent.append((value, *tvs))
        done = self._steps.step
        if done % _REPORT_EVERY == 0 or done == self._steps.steps:
            mean = [sum(column) / len(self._recent) for column in zip(*self._recent, strict=True)]
            self._recent = []
            self._listener.stepped(TrainProgress(done, self._steps.steps, mean[0], tuple(mean[1:])))
            figures = {"loss": mean[0]} | {f"tv/{i + 1}": tv for i, tv in enumerate(mean[1:])}
            for sink in sinks:
                sink.write(done, figures)

    def _scale(self, step: int, mine: slice) -> Tensor | None:
        """Return the CFG scales of a step's images, [m, N]: one per image, distributed around the spec's."""
        if self._scales is None:
            return None
        draw = torch.rand(self._request.batch, 1, generator=self._generator(step, 1))
        return (1 + (self._scales - 1) * (1 + SPREAD * (2 * draw - 1)))[mine]

    def _noise(self, step: int, mine: slice, example: Example) -> Tensor | None:
        """Return uniform noise for the features of a step's rows, in their standard deviations; None without noise."""
        size, rows, cfg = self._request.feature_noise, 1 if self._scales is None else 2, self._target.cfg
        if not size or not isinstance(self._steps.model, Eagle):
            return None
        length = cfg.prefix + cfg.tokens if example.lengths is None else example.text.shape[1] + example.codes.shape[1]
        shape = (self._request.batch, rows, length - 1, cfg.dim)
        noise = torch.rand(shape, generator=self._generator(step, 2))[mine] * (2 * size) - size
        return noise.transpose(0, 1).flatten(0, 1).to(self._process.device)

    def _generator(self, step: int, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed((self._request.seed * 4 + purpose) * 1_000_003 + step)

    def _measure(self, sinks: list[Sink]) -> None:
        """Measure the accept length of the averaged weights, and write them if they are the best."""
        found, step = self._acceptance(), self._steps.step
        better = not self._best or found.accept_length > self._best["acceptance"]["accept_length"]
        entry = {"step": step, "acceptance": asdict(found)}
        self._start = self._start or entry
        self._stale = 0 if better else self._stale + 1
        self._history.append({"step": step} | found.as_dict())
        if better:
            self._best = entry
            if self._process.main:
                self._write(weights_bytes(self._steps.ema.model, config_of(self._steps.ema.model)))
        self._listener.measured(step, found, better)
        figures = {"accept_length": found.accept_length, "accept_length_of_the_schedule": found.relaxed}
        figures |= {f"acceptance/{i + 1}": share for i, share in enumerate(found.acceptance)}
        for sink in sinks:
            sink.write(step, figures)

    def _write(self, data: bytes) -> None:
        """Record the digest of the weights, then write them, so that an interruption in between loses neither."""
        request = self._request
        with disk_errors(request.folder):
            request.folder.mkdir(parents=True, exist_ok=True)
            check_target(request.folder / WRITTEN)
            with (request.folder / WRITTEN).open("a", encoding="utf-8") as file:
                file.write(f"{sha256_bytes(data)}\n")
        write_bytes(request.out, data)

    def _make_lesson(self) -> ImageLesson | TextLesson:
        target, data, request = self._target, self._data, self._request
        objective = Objective(self._sampling, request.tv_weight, 0.2 if request.kind == "eagle" else 0.0)
        if data.most is not None:
            chosen = frequent(data.train.codes, target.cfg.vocab)
            # A CPU with such instructions computes them in a fifth of the time; what is measured stays float32.
            by = lowered(target) if request.precision == "bf16" else target
            return TextLesson(target, by, TextObjective(objective, chosen), data.most)
        return ImageLesson(target, objective, torch.from_numpy(target.cfg.layout.forced < 0).to(self._process.device))

    def _acceptance(self) -> Acceptance:
        return self._lesson.measured(self._steps.ema.model, self._held_out(), self._omegas)

    def _held_out(self) -> Iterator[Example]:
        held, size = self._data.held, self._request.batch
        for first in range(0, len(held), size):
            numbers = range(first, min(first + size, len(held)))
            scale = None if self._scales is None else self._scales.expand(len(numbers), -1)
            yield held.example(numbers, scale, self._process.device)

    def _check_batch(self) -> None:
        batch, count = self._request.batch, self._process.count
        if batch % count:
            raise UserError("--batch", expected=f"a multiple of the {count} processes", found=str(batch))

    def _identity(self) -> dict[str, Any]:
        """Return what must be equal to continue from a checkpoint. More steps or patience are allowed."""
        r = self._request
        start = "" if r.start_from is None else sha256_file(r.start_from)
        return {
            "target": sha256_file(r.loaded.files["target.weights"]), "data": self._data.name, "kind": r.kind,
            "network": config_of(self._steps.model), "from": start, "own_steps": r.depths, "noise": r.feature_noise,
            "tv": r.tv_weight, "batch": r.batch, "lr": r.lr, "seed": r.seed, "precision": r.precision, "every": r.every,
            "omegas": list(self._omegas), "sampling": r.loaded.spec.sampling.model_dump(mode="json"),
        }  # fmt: skip

    def _save(self) -> None:
        if self._process.main:
            parts: dict[str, Any] = {
                "identity": self._identity(),
                "training": self._steps.state(),
                "history": self._history,
            }
            parts |= {"best": self._best, "first": self._start, "stale": self._stale}
            save_tree(self._request.folder / CHECKPOINT, parts)
        self._process.wait()

    def _resume(self) -> bool:
        path = self._request.folder / CHECKPOINT
        found = load_state(path)
        if found is None:
            return False
        _same(path, self._identity(), found.identity)
        try:
            self._steps.restore(found.training)
            for entry in filter(None, (found.best, found.first)):
                _acceptance(entry["acceptance"])
        except MISFITS as error:
            raise unfit(path) from error
        self._best, self._start, self._stale, self._history = found.best, found.first, found.stale, found.history
        return True

    @contextmanager
    def _sinks(self) -> Iterator[list[Sink]]:
        request, sinks = self._request, list[Sink]()
        if self._process.main:
            sinks.append(LinesSink(request.folder / LOG))
            if request.tensorboard is not None:
                sinks.append(TensorBoardSink(request.tensorboard))
            if request.wandb is not None:
                sinks.append(WandbSink(request.wandb, self._identity()))
        try:
            yield sinks
        finally:
            for sink in sinks:
                sink.close()

    def report(self, stopped: Literal["steps", "patience"], seconds: float) -> TrainReport:
        """Return the result. seconds: wall time of the training."""
        start, best = (_acceptance(entry["acceptance"]) for entry in (self._start, self._best))
        return TrainReport(
            self._request.out,
            self._request.kind,
            self._steps.step,
            self._best["step"],
            start,
            best,
            stopped,
            len(self._data.train),
            len(self._data.held.prompts),
            seconds,
            self._history,
        )


def _acceptance(data: Mapping[str, Any]) -> Acceptance:
    return Acceptance(**data)


def _same(path: Any, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise UserError for the first setting in which a checkpoint differs from the request."""
    for key, value in wanted.items():
        other = found.get(key)
        if other != value:
            fix = f"give the settings it was started with, choose another --out, or remove {path}"
            what = f"{path}: {key}"
            raise UserError(what, expected=str(value)[:80], found=str(other)[:80], fix=fix)
