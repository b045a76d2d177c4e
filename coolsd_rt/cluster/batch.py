"""Draws the parts of a long job in Ray Data: read, map with one engine an actor, write.

A block of the data set is one part. An actor draws it by the same code as `coolsd-rt batch` on one machine and writes
its files itself, named by part and id, so that what comes out is the same, and a part that is drawn again after a
worker was killed finds the images that are there. What goes on to the driver are reports. Knows Ray Data and orders.
Does not know prompts files.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from coolsd_rt.batch.drawing import BatchFigures
from coolsd_rt.batch.job import JobOrder
from coolsd_rt.batch.part import Part
from coolsd_rt.batch.part_files import PartReport
from coolsd_rt.batch.workers import LocalWorkers, OnFigures
from coolsd_rt.errors import CoolsdError, MissingExtra, rebuilt
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.plans import DraftPlan


@dataclass(frozen=True)
class RayWorkers:
    """Actors on a Ray that this process is connected to. count: of actors. cpus: of each, and threads of its engine."""

    count: int
    cpus: int

    def check(self, opened: OpenedEngine) -> None:
        """Raise MissingExtra without pyarrow, which Ray Data needs. The engine runs on other machines."""
        if find_spec("pyarrow") is None:
            raise MissingExtra("pyarrow", "ray", "--ray")

    def choose_plan(
        self, order: JobOrder, prompts: Sequence[str], on_choose: Callable[[int], None]
    ) -> DraftPlan | None:
        """Let a worker choose the plan. on_choose: not called; it would have to be told from there."""
        import ray

        task = ray.remote(num_cpus=self.cpus, max_retries=2)(_choose_plan)
        answer: dict[str, Any] = ray.get(task.remote(order.as_json(), list(prompts), self.cpus))
        _check(answer)
        return None if answer["plan"] is None else DraftPlan.of(answer["plan"])

    def draw(self, order: JobOrder, parts: Iterable[Part], tell: OnFigures) -> Iterator[PartReport]:
        """Draw parts on the actors; yield the report of each when it is finished."""
        from ray import data

        _quiet(data)
        blocks = [{"part": part.number, "rows": part.as_json()} for part in parts]
        if not blocks:
            return
        actors = min(self.count, len(blocks))
        drawn = data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
            PartActor,
            batch_size=1,
            batch_format="numpy",
            compute=data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
            num_cpus=self.cpus,
            fn_constructor_args=(order.as_json(), self.cpus),
        )
        figures = BatchFigures()
        for row in drawn.iter_rows():
            answer = json.loads(row["answer"])
            _check(answer)
            figures.add(BatchFigures(**answer["figures"]))
            tell(figures)
            yield PartReport.of(answer["report"])


class PartActor:
    """What Ray runs: an engine, which is opened with the first part. Arrays are of one row each."""

    def __init__(self, order: str, threads: int) -> None:
        self._order, self._workers = JobOrder.of(order), LocalWorkers(threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Draw parts. Returns an answer for each, as JSON text; an error of ours is one."""
        pairs = zip(batch["part"], batch["rows"], strict=True)
        return {"answer": [json.dumps(self._answer(Part.of(int(number), str(rows)))) for number, rows in pairs]}

    def _answer(self, part: Part) -> dict[str, Any]:
        latest: list[BatchFigures] = [BatchFigures()]
        try:
            (report,) = self._workers.draw(self._order, [part], latest.append)
        except CoolsdError as error:
            return _failure(error)
        return {"report": report.as_dict(), "figures": asdict(latest[-1])}


def _choose_plan(order: str, prompts: list[str], threads: int) -> dict[str, Any]:
    try:
        plan = LocalWorkers(threads).choose_plan(JobOrder.of(order), prompts, lambda images: None)
    except CoolsdError as error:
        return _failure(error)
    return {"plan": None if plan is None else plan.as_dict()}


def _failure(error: CoolsdError) -> dict[str, Any]:
    return {"error": [error.what, error.expected, error.found, error.fix, error.exit_code]}


def _check(answer: dict[str, Any]) -> None:
    """Raise the error of an answer, if it is one."""
    if "error" in answer:
        raise rebuilt(*answer["error"])


def _quiet(data: Any) -> None:
    """Keep Ray Data's own progress bars and advice off the terminal: progress is told by `tell`."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.verbose_stats_logs = False
