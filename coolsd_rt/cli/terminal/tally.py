"""Stages of a work, counted as rich counts them, without rich: for where no bar is drawn.

rich is imported for a bar alone: it takes as long to import as to load a small graph. Knows counts and times. Does not
know what is counted, or how it is shown.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

_STEPS = 1000  # the last steps, of which the speed is the mean: as many as rich keeps


class Stage(Protocol):
    """A stage as `Work` reads it: one of rich's tasks, or a `Count`."""

    @property
    def id(self) -> Any:
        """Its key in `Stages`."""
        ...

    @property
    def description(self) -> str:
        """Its name."""
        ...

    @property
    def total(self) -> float | None:
        """Its size, if known."""
        ...

    @property
    def completed(self) -> float:
        """How much is done."""
        ...

    @property
    def remaining(self) -> float | None:
        """How much is left, if known."""
        ...

    @property
    def fields(self) -> dict[str, Any]:
        """What else is shown of it."""
        ...

    @property
    def time_remaining(self) -> float | None:
        """Seconds to its end by the speed so far, if known."""
        ...

    def get_time(self) -> float:
        """The time by its clock, in seconds."""
        ...


class Count:
    """One stage."""

    def __init__(self, key: int, description: str, total: float | None, clock: Callable[[], float]) -> None:
        self.id, self.description, self.total, self.get_time = key, description, total, clock
        self.completed = 0.0
        self.fields: dict[str, Any] = {}
        self._steps: deque[tuple[float, float]] = deque(maxlen=_STEPS)  # time, and how much was done since the last

    @property
    def remaining(self) -> float | None:
        """How much is left; None without a size."""
        return None if self.total is None else self.total - self.completed

    @property
    def time_remaining(self) -> float | None:
        """Seconds to the end by the speed since the first step; None before there is one."""
        if self.remaining is not None and self.remaining <= 0:
            return 0.0
        seconds = self._steps[-1][0] - self._steps[0][0] if self._steps else 0.0
        done = sum(count for _, count in self._steps) - (self._steps[0][1] if self._steps else 0.0)
        if self.remaining is None or not seconds or not done:
            return None
        return float(math.ceil(self.remaining * seconds / done))

    def move(self, completed: float | None, total: float | None) -> None:
        """Set how much is done, of how much. Another size begins the measurement of the speed again."""
        if total is not None and total != self.total:
            self.total = total
            self._steps.clear()
        before, self.completed = self.completed, self.completed if completed is None else completed
        if self.completed > before:
            self._steps.append((self.get_time(), self.completed - before))


class Tally:
    """The stages of a work, with the methods of rich's progress display that `Work` calls. Shows nothing."""

    disable = True

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock, self._made = clock, 0
        self.tasks: list[Count] = []

    def add_task(self, description: str, *, total: float | None, **fields: Any) -> int:
        """Begin a stage; returns its key."""
        self._made += 1
        made = Count(self._made, description, total, self._clock)
        made.fields |= fields
        self.tasks.append(made)
        return made.id

    def remove_task(self, task_id: int) -> None:
        """Forget a stage."""
        self.tasks = [task for task in self.tasks if task.id != task_id]

    def update(
        self,
        task_id: int,
        *,
        completed: float | None = None,
        total: float | None = None,
        description: str | None = None,
        **fields: Any,
    ) -> None:
        """Move a stage on; None leaves a value as it is."""
        task = next(task for task in self.tasks if task.id == task_id)
        task.description = task.description if description is None else description
        task.fields |= fields
        task.move(completed, total)


def duration(seconds: float) -> str:
    """Seconds as a person says them: "40 s", "3 min", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def left(task: Stage) -> str:
    """How long a stage still takes: by the speed since its first step; after that step alone, by how long it took."""
    seconds = task.time_remaining
    if seconds is None and task.completed and task.remaining is not None:
        seconds = (task.get_time() - task.fields["begun"]) / task.completed * task.remaining
    known = task.fields["timed"] and seconds is not None and math.isfinite(seconds) and round(seconds) > 0
    return f"{duration(seconds)} left" if known and seconds is not None else ""


def counts(task: Stage) -> str:
    """How much of a stage is done; nothing where its size is not known."""
    return "" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}"
