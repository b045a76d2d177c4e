"""Draws the rows of parts that have no image yet, in slots, and finishes each part.

Images enter as soon as one before them is finished, from part to part, so that slots do not stand empty at a part's
end. A row that is refused is a failed row; only what concerns the engine or the disk ends the drawing. Knows parts, a
job and the slot loop. Does not know which parts there are or who is told.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from coolsd_rt.batch.job import BatchJob, encode_each
from coolsd_rt.batch.part import FailedRow, Part
from coolsd_rt.batch.part_files import PartFiles, PartReport, RowImage
from coolsd_rt.batch.prompt_row import parse_row, row_id, safe_name
from coolsd_rt.batch.prompts_file import FileRow
from coolsd_rt.errors import MissingExtra, UserError
from coolsd_rt.workflows.drawing import Asked, Job
from coolsd_rt.workflows.generate.identity import Identity
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.slots import DrawnImage, SlotLoop


@dataclass
class BatchFigures:
    """What a run has done so far. found: images that were there. drawn: now. accepted: drafts, of `rounds` rounds."""

    found: int = 0
    drawn: int = 0
    failed: int = 0
    rounds: int = 0
    accepted: int = 0

    def add(self, other: BatchFigures) -> None:
        """Add the figures of another part."""
        self.found, self.drawn = self.found + other.found, self.drawn + other.drawn
        self.failed, self.rounds = self.failed + other.failed, self.rounds + other.rounds
        self.accepted += other.accepted

    @property
    def rows(self) -> int:
        """Rows that are done with."""
        return self.found + self.drawn + self.failed

    @property
    def mean_acceptance_length(self) -> float | None:
        """Tokens per round; None before the first round, and on a device's loop, which counts none."""
        return 1 + self.accepted / self.rounds if self.rounds else None


@dataclass
class _Row:
    """A row whose image has to be drawn."""

    part: _OpenPart
    image: RowImage
    prepared: Prepared
    asked: Asked


@dataclass
class _OpenPart:
    """A part that is being drawn. left: images that are not there yet."""

    part: Part
    files: PartFiles
    images: list[RowImage] = field(default_factory=list)
    failed: list[FailedRow] = field(default_factory=list)
    left: int = 0

    def finish(self) -> PartReport:
        """Write the report of a part that has all its images."""
        failed = sorted(self.failed, key=lambda one: one.row)
        return self.files.finish(self.images, len(self.part.rows), failed)


class PartsDrawing:
    """Draws parts of a job. tell: called with the figures after each image and each part."""

    def __init__(
        self, job: BatchJob, files: Callable[[int], PartFiles], tell: Callable[[BatchFigures], None] | None = None
    ) -> None:
        self._job, self._files, self._tell = job, files, tell or (lambda figures: None)
        self.figures = BatchFigures()
        self._loop = SlotLoop(job.opened, job.slots)
        self._running: dict[int, _Row] = {}
        self._waiting: deque[tuple[_Row, Job]] = deque()
        self._tickets = itertools.count()

    def run(self, parts: Iterable[Part]) -> Iterator[PartReport]:
        """Draw parts; yield the report of each when it is finished, in about the order of the parts.

        Parts are taken as slots become free. Raises CoolsdError if the disk is full or the engine broken, UserError if
        a file of another job is in the place of an image.
        """
        left = iter(parts)
        while True:
            while self._loop.waiting < self._job.slots and not self._waiting:
                if (part := next(left, None)) is None:
                    break
                opened = self._open(part)
                if not opened.left:
                    yield self._finished(opened)
            while self._waiting and self._loop.waiting < self._job.slots:
                self._enter(*self._waiting.popleft())
            if not self._loop.busy:
                return
            for drawn in self._loop.step():
                if (whole := self._write(drawn)) is not None:
                    yield self._finished(whole)

    def _finished(self, part: _OpenPart) -> PartReport:
        report = part.finish()
        self._tell(self.figures)
        return report

    def _open(self, part: Part) -> _OpenPart:
        """Find out which rows of a part have to be drawn, and encode their prompts."""
        opened = _OpenPart(part, self._files(part.number))
        rows = [row for file_row in part.rows if (row := self._row(opened, file_row)) is not None]
        encoded = encode_each([row.asked.prompt for row in rows], self._job.conditioner)
        for row in rows:
            read = encoded[row.asked.prompt]
            if isinstance(read, UserError):
                self._fail(opened, part.rows[row.image.row - part.rows[0].number], str(read))
                opened.images.remove(row.image)
                continue
            opened.left += 1
            self._waiting.append((row, Job(row.asked.index, row.asked.prompt, row.asked.seed, read)))
        return opened

    def _row(self, part: _OpenPart, file_row: FileRow) -> _Row | None:
        """Return a row to draw; None if it failed or its image is there."""
        try:
            if file_row.problem:
                raise UserError(file_row.problem)
            row, number = parse_row(file_row.values), file_row.number
            named = row.id if row.id is not None else row_id(number)
            seed = self._job.order.settings.seed_of(row, number)
            prepared, asked = self._job.prepared(row, seed), Asked(number, row.prompt, seed)
            identity = Identity.of(prepared.provenance(asked))
        except MissingExtra:
            raise
        except UserError as error:
            self._fail(part, file_row, str(error))
            return None
        if identity is None:
            raise ValueError("a provenance without an identity")
        image = RowImage(named, number, safe_name(named))
        part.images.append(image)
        if part.files.has(image.name, identity):
            self.figures.found += 1
            return None
        return _Row(part, image, prepared, asked)

    def _fail(self, part: _OpenPart, row: FileRow, problem: str) -> None:
        part.failed.append(FailedRow.of(row, problem))
        self.figures.failed += 1

    def _enter(self, row: _Row, job: Job) -> None:
        ticket = next(self._tickets)
        self._running[ticket] = row
        self._loop.enter(ticket, job, row.prepared.settings)

    def _write(self, drawn: DrawnImage) -> _OpenPart | None:
        """Write a finished image. Returns its part if that was the last one of it."""
        row = self._running.pop(drawn.ticket)
        pixels = self._loop.pixels(drawn.codes)
        row.part.files.write(row.image.name, pixels, row.prepared.provenance(row.asked))
        self.figures.drawn += 1
        self.figures.rounds += len(drawn.accepted)
        self.figures.accepted += sum(drawn.accepted)
        self._tell(self.figures)
        row.part.left -= 1
        return row.part if row.part.left == 0 else None
