"""Draws a long job, or one shard of it, and continues one that was interrupted.

    1. Read the prompts file once: how many rows it has, and whether it can be read. Open the engine's manifest.
    2. Claim the output folder: `batch.json` says what the job is, and another job is refused.
    3. Choose the plan of pacing `auto` and keep it in `plan.json`.
    4. Draw the parts without a report (`drawing`, here or in workers elsewhere), and finish each.
    5. Write the rows that failed to `failed.jsonl`.

Knows the order of the steps and the output folder. Does not know how a part is drawn or how a terminal shows anything.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from coolsd_rt import limits
from coolsd_rt.batch.drawing import BatchFigures
from coolsd_rt.batch.failed_file import FailedFile
from coolsd_rt.batch.job import BatchJob, JobOrder, JobSettings
from coolsd_rt.batch.part import WHOLE, FailedRow, Part, Shard, count_rows, read_parts
from coolsd_rt.batch.part_files import Format, PartFiles, PartReport
from coolsd_rt.batch.prompts_file import read_rows
from coolsd_rt.batch.workers import LocalWorkers, PartWorkers
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.files import read_json, why_unusable
from coolsd_rt.spec.fields import Threads, check_fields
from coolsd_rt.spec.section import Within
from coolsd_rt.store.atomic import disk_errors, sweep_folder
from coolsd_rt.store.hashing import sha256_file
from coolsd_rt.store.results import claim, save
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.plans import DraftPlan

HEAD, PLAN = "batch.json", "plan.json"
VERSION = 1
_TRIED = 24  # prompts of the job that plans are tried with


@dataclass(frozen=True)
class BatchConfig:
    """What a user asks for.

    Attributes:
        engine: `engines/NAME`, or the folder of one fingerprint.
        prompts: file of rows; see `prompts_file`.
        out: output folder.
        settings: values of rows that do not have their own.
        kind: PNG files, or Parquet files with columns of provenance.
        part_rows: rows of a part, which is what a shard or a worker takes at a time.
        shard: which parts this process draws.
        slots: images drawn at once; None is the spec's `engine.max_batch`.
        threads: CPU threads of the engine; None is the usable cores.
        features, text_encoder: as for `generate`.
    """

    engine: Path
    prompts: Path
    out: Path
    settings: JobSettings = field(default_factory=JobSettings)
    kind: Format = "png"
    part_rows: Annotated[int, Within(limits.PART_ROWS)] = 100
    shard: Shard = WHOLE
    slots: Annotated[int, Within(limits.MAX_BATCH)] | None = None
    threads: Threads | None = None
    features: Path | None = None
    text_encoder: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class BatchCallbacks:
    """Who is told what.

    Attributes:
        start: the rows of this run, how many of them are of parts that are finished, and how many images these have.
        progress: the figures so far; those of finished parts of before are not in them.
        failed: a row that has no image.
        measuring: the images at once, before plans are tried.
    """

    start: Callable[[int, int, int], None] = lambda rows, done, images: None
    progress: Callable[[BatchFigures], None] = lambda figures: None
    failed: Callable[[FailedRow], None] = lambda row: None
    measuring: Callable[[int], None] = lambda images: None


@dataclass(frozen=True)
class BatchReport:
    """What came of a run. images: of the shard, there now. failed: rows without one. figures: of this run alone."""

    out: Path
    rows: int
    images: int
    failed: int
    failed_file: Path | None
    figures: BatchFigures
    seconds: float
    plan: DraftPlan | None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        f = self.figures
        return {
            "out": str(self.out),
            "rows": self.rows,
            "images": self.images,
            "drawn": f.drawn,
            "failed": self.failed,
            "failed_file": None if self.failed_file is None else str(self.failed_file),
            "seconds": self.seconds,
            "images_per_second": f.drawn / self.seconds if self.seconds else None,
            "mean_acceptance_length": f.mean_acceptance_length,
            "plan": None if self.plan is None else self.plan.as_dict(),
        }


def run_batch(
    config: BatchConfig, callbacks: BatchCallbacks | None = None, workers: PartWorkers | None = None
) -> BatchReport:
    """Draw what is missing of a job or a shard. workers: who draws the parts; None: this process.

    Raises:
        UserError: no engine, no rows, a wrong value, an output folder of something else, or one in which another
            process draws the same shard.
        CoolsdError: the engine is broken, or the disk is full. What is finished stays, and the same call continues.
    """
    tell = callbacks or BatchCallbacks()
    opened = OpenedEngine.at(config.engine)
    opened.check_draws()
    order = _order(config, opened)
    paced = BatchJob(opened, order).base.paced  # and errors of the settings, before the file is read
    rows = count_rows(config.prompts)
    if not rows:
        raise UserError(str(config.prompts), expected="at least one row", found="none")
    workers = workers or LocalWorkers(config.threads)
    workers.check(opened)
    if config.kind == "parquet" and find_spec("pyarrow") is None:
        raise MissingExtra("pyarrow", "parquet", "--format parquet")
    head = _head(config, order)
    _claim(config.out, head)
    with _lock(config.out, f"shard-{config.shard}"):
        with _lock(config.out, "job", wait=True):
            _claim(config.out, head)  # again: another job may have been first
            plan = _plan(config, order, workers, tell) if paced else None
        return _BatchRun(config, replace(order, plan=plan), workers, tell).run(rows)


def _order(config: BatchConfig, opened: OpenedEngine) -> JobOrder:
    def text(path: Path | None) -> str | None:
        return None if path is None else str(path.resolve())

    return JobOrder(
        str(opened.folder.folder.resolve()),
        opened.manifest.fingerprint,
        str(config.out.resolve()),
        config.kind,
        config.settings,
        config.slots,
        None,
        text(config.features),
        text(config.text_encoder),
    )


def _head(config: BatchConfig, order: JobOrder) -> dict[str, Any]:
    """Return what makes a folder that of this job. Slots and threads do not: they change no image."""
    return {
        "version": VERSION,
        "engine": order.fingerprint,
        "prompts": sha256_file(config.prompts),
        "settings": order.settings.as_dict(),
        "format": config.kind,
        "part_rows": config.part_rows,
    }


def _claim(out: Path, head: Mapping[str, Any]) -> None:
    try:
        claim(out, HEAD, head, "the folder of this job")
    except UserError:
        if why_unusable(out / HEAD) == "nothing":
            raise
        claim(out, HEAD, head, "the folder of this job")  # it came from another shard meanwhile


@contextmanager
def _lock(out: Path, name: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock of the output folder. Raises UserError if another process has it, unless `wait`."""
    from filelock import FileLock, Timeout

    with disk_errors(out):
        (out / ".locks").mkdir(exist_ok=True)
        lock = FileLock(out / ".locks" / f"{name}.lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            fix = "wait for it, or give another --out"
            found = "another process that draws the same shard"
            raise UserError(str(out), expected="a folder that nobody draws into", found=found, fix=fix) from None
    try:
        yield
    finally:
        lock.release()


def _plan(config: BatchConfig, order: JobOrder, workers: PartWorkers, tell: BatchCallbacks) -> DraftPlan | None:
    """Return the plan of the job: from its folder, or chosen now and written there."""
    path = config.out / PLAN
    if why_unusable(path) != "nothing":
        return _plan_in(path)
    prompts = [row.values.get("prompt") for row in islice(read_rows(config.prompts), _TRIED)]
    texts = [text for text in prompts if isinstance(text, str) and text.strip()]
    plan = workers.choose_plan(order, texts[:_TRIED], tell.measuring)
    if plan is not None:
        save(path, (json.dumps(plan.as_dict()) + "\n").encode())
    return plan


def _plan_in(path: Path) -> DraftPlan:
    """Read the plan of a folder. Raises CoolsdError."""
    what, fix = "the plan that this job's images draft by", "name another folder"
    data = read_json(path, what, limits.RESULT_BYTES, fix=fix, error=CoolsdError)
    if not isinstance(data, dict):
        raise CoolsdError(str(path), expected=what, found="other JSON data", fix=fix)
    try:
        return DraftPlan.of(data)
    except CoolsdError as error:
        raise CoolsdError(str(path), expected=what, found=error.found, fix=fix) from None


class _BatchRun:
    """One run over the parts of a shard."""

    def __init__(self, config: BatchConfig, order: JobOrder, workers: PartWorkers, tell: BatchCallbacks) -> None:
        self._config, self._order, self._workers, self._tell = config, order, workers, tell
        self._failed_file = FailedFile(config.out, config.shard)
        self._figures = BatchFigures()
        self._images = self._failures = self._done = 0

    def run(self, every: int) -> BatchReport:
        """Draw the parts that have no report. every: rows of the whole job."""
        size = self._config.part_rows
        rows = sum(min(size, every - first) for first in range(0, every, size) if self._config.shard.has(first // size))
        for folder in (self._config.out, self._config.out / "images", self._config.out / "parts"):
            sweep_folder(folder)
        left = self._look(math.ceil(every / size))
        self._tell.start(rows, self._done, self._images)
        began = time.monotonic()
        with self._failed_file.open() as write:
            if left:
                for report in self._workers.draw(self._order, self._parts(left), self._progress):
                    self._count(report)
                    write(report.failed)
        seconds = time.monotonic() - began
        file = self._failed_file.path if self._failures else None
        plan = self._order.plan
        return BatchReport(self._config.out, rows, self._images, self._failures, file, self._figures, seconds, plan)

    def _look(self, parts: int) -> set[int]:
        """Read the reports of finished parts; return the numbers of the others. parts: of the whole job."""
        left = set()
        for number in filter(self._config.shard.has, range(parts)):
            files = PartFiles(self._config.out, number, self._config.kind)
            if (report := files.report()) is None:
                left.add(number)
                continue
            files.tidy()
            self._count(report)
            self._failed_file.known.extend(report.failed)
            self._done += report.rows
        return left

    def _parts(self, numbers: set[int]) -> Iterator[Part]:
        every = read_parts(self._config.prompts, self._config.part_rows, self._config.shard)
        return (part for part in every if part.number in numbers)

    def _progress(self, figures: BatchFigures) -> None:
        self._figures = figures
        self._tell.progress(figures)

    def _count(self, report: PartReport) -> None:
        self._images += report.images
        self._failures += len(report.failed)
        for row in report.failed:
            self._tell.failed(row)
