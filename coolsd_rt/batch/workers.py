"""Who draws the parts of a job: this process, or others elsewhere that do the same (`cluster.batch`).

Knows an order and its engine. Does not know prompts files or the output folder's head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from coolsd_rt.batch.drawing import BatchFigures, PartsDrawing
from coolsd_rt.batch.job import BatchJob, JobOrder, engine_at
from coolsd_rt.batch.part import Part
from coolsd_rt.batch.part_files import PartFiles, PartReport
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.plans import DraftPlan

OnFigures = Callable[[BatchFigures], None]


class PartWorkers(Protocol):
    """Draws parts wherever it likes."""

    def check(self, opened: OpenedEngine) -> None:
        """Raise MissingExtra if it is known already that the engine cannot be run."""
        ...

    def choose_plan(
        self, order: JobOrder, prompts: Sequence[str], on_choose: Callable[[int], None]
    ) -> DraftPlan | None:
        """See `BatchJob.choose_plan`."""
        ...

    def draw(self, order: JobOrder, parts: Iterable[Part], tell: OnFigures) -> Iterator[PartReport]:
        """Draw parts; yield the report of each when it is finished. tell: called with the figures of all so far.

        Raises as `PartsDrawing.run` does, and CoolsdError if a worker has no such engine.
        """
        ...


class LocalWorkers:
    """This process. threads: of the engine; None is the usable cores."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._engine: OpenedEngine | None = None

    def check(self, opened: OpenedEngine) -> None:
        """Raise MissingExtra if the engine's backend is not installed here."""
        opened.check_backend()

    def choose_plan(
        self, order: JobOrder, prompts: Sequence[str], on_choose: Callable[[int], None]
    ) -> DraftPlan | None:
        """See `BatchJob.choose_plan`."""
        return BatchJob(self._opened(order), order).choose_plan(prompts, on_choose)

    def draw(self, order: JobOrder, parts: Iterable[Part], tell: OnFigures) -> Iterator[PartReport]:
        """Draw parts in this process."""
        opened = self._opened(order)
        job = BatchJob(opened, order)
        opened.load()

        def files(number: int) -> PartFiles:
            return PartFiles(Path(order.out), number, order.kind)

        return PartsDrawing(job, files, tell).run(parts)

    def _opened(self, order: JobOrder) -> OpenedEngine:
        """Return the engine, opened for the first order: a plan's and the parts' name the same."""
        if self._engine is None:
            self._engine = engine_at(order, self._threads)
        return self._engine
