"""Progress of a long verb on stderr: a progress bar on a terminal, periodic lines elsewhere.

Both show the completed and the total count and the estimated remaining time. The bar fits a terminal of any width:
it drops its parts one by one before a line would wrap. Elsewhere a stage prints its size at the start, one line at
most every `EVERY` seconds, and its size again at the end.

Knows stages, streams and rich. Does not know what is counted.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import Progress, Task, TaskID
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coolsd_rt.cli.terminal.output import note
from coolsd_rt.cli.terminal.text import fit, visible

EVERY = 10.0
"""Seconds from one line to the next where there is no terminal."""

_WINDOW = math.inf  # seconds that the speed is taken over: a step may take hours; rich keeps the last 1000 steps
_WIDEST, _NARROWEST = 40, 10  # of the bar itself


def duration(seconds: float) -> str:
    """Seconds as a person says them: "40 s", "3 min", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _left(task: Task) -> str:
    """By the speed since the first step; after the first step alone, by how long it took."""
    seconds = task.time_remaining
    if seconds is None and task.completed and task.remaining is not None:
        seconds = (task.get_time() - task.fields["begun"]) / task.completed * task.remaining
    known = task.fields["timed"] and seconds is not None and math.isfinite(seconds) and round(seconds) > 0
    return f"{duration(seconds)} left" if known and seconds is not None else ""


def _counts(task: Task) -> str:
    return "" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}"


class _Bar(Progress):
    """rich's progress display, fitted to the terminal width."""

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        grid = Table.grid(padding=(0, 1))
        for task in tasks:
            grid.add_row(*_cells(task, self.console.width - 1))
        return grid


def _cells(task: Task, width: int) -> list[Any]:
    """What a stage shows in so many columns. It gives up, in this order: its figures, the bar, words of its name."""
    what, figures = task.description, str(task.fields["figures"])
    fixed = [cell for cell in (_counts(task), _left(task)) if cell]
    room = width - sum(len(cell) + 1 for cell in fixed)
    if len(what) + _NARROWEST + len(figures) + 2 > room:
        figures = ""
    bar = min(_WIDEST, room - len(what) - 1 - (len(figures) + 1 if figures else 0))
    if bar < _NARROWEST:
        return [Text(cell, no_wrap=True) for cell in (fit(what, room), *fixed) if cell]
    drawn = ProgressBar(task.total, task.completed, bar, pulse=task.total is None, animation_time=task.get_time())
    return [Text(what, no_wrap=True), drawn, *(Text(cell, no_wrap=True) for cell in (*fixed, figures) if cell)]


class Work:
    """Consecutive stages, each with a name, a size and a completed count."""

    def __init__(self, bar: _Bar, quiet: bool) -> None:
        self._bar, self._lines = bar, bar.disable and not quiet
        self._task: TaskID | None = None
        self._unit, self._announce, self._said, self._next = "", False, False, 0.0

    @property
    def on_terminal(self) -> bool:
        """Whether a progress bar is shown."""
        return not self._bar.disable

    @property
    def plain(self) -> bool:
        """Whether lines are wanted in the place of a bar."""
        return self._lines

    def start(
        self, what: str, total: int | None = None, unit: str = "", *, announce: bool = True, timed: bool = True
    ) -> None:
        """Begin a stage. unit: what is counted, "images". announce: without a bar, say its size when it is known.

        timed: whether its steps take about the same time each, so that a rest can be told.
        """
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(visible(what), total=total, figures="", timed=timed, begun=math.nan)
        self._unit, self._announce, self._said, self._next = unit, announce, False, monotonic() + EVERY
        self._say_size()

    def update(
        self, done: int | None = None, of: int | None = None, *, what: str | None = None, figures: str | None = None
    ) -> None:
        """So many are done, in all. what: the stage's name from now on. figures: what else there is to say."""
        task = self._now
        name = None if what is None else visible(what)
        more = task.fields["figures"] if figures is None else visible(figures)
        self._bar.update(task.id, completed=done, total=of, description=name, figures=more)
        self._say_size()
        ended = self._said and task.total is not None and task.completed >= task.total and done is not None
        if self._lines and (ended or monotonic() >= self._next):
            self._say_how_far(task)

    def tell(self, line: str) -> None:
        """A line of the work's own, which says as much as one of ours: the next of ours comes later."""
        note(line)
        self._next = monotonic() + EVERY

    def advance(self, figures: str | None = None) -> None:
        """One more is done."""
        self.update(int(self._now.completed) + 1, figures=figures)

    def _say_size(self) -> None:
        task = self._now
        if task.total is None or not math.isnan(task.fields["begun"]):
            return
        self._bar.update(task.id, begun=task.get_time())
        if self._announce and self._lines:
            self._line(f"{task.description}: {task.total:.0f} {self._unit}".rstrip())

    @property
    def _now(self) -> Task:
        if self._task is None:
            self.start("working")
        return next(task for task in self._bar.tasks if task.id == self._task)

    def _say_how_far(self, task: Task) -> None:
        done = f"{task.completed:.0f}" + ("" if task.total is None else f" of {task.total:.0f}")
        parts = (f"{done} {self._unit}".rstrip(), str(task.fields["figures"]), _left(task) and f"about {_left(task)}")
        self._line(f"{task.description}: {', '.join(part for part in parts if part)}")

    def _line(self, line: str) -> None:
        note(line)
        self._said, self._next = True, monotonic() + EVERY


@contextmanager
def progress(quiet: bool = False) -> Iterator[Work]:
    """Show how far the work inside is. quiet: show nothing."""
    console = Console(file=sys.stderr or io.StringIO(), highlight=False)
    hidden = quiet or sys.stderr is None or not sys.stderr.isatty() or console.is_dumb_terminal
    bar = _Bar(console=console, disable=hidden, transient=True, speed_estimate_period=_WINDOW, refresh_per_second=5)
    with bar:
        yield Work(bar, quiet)


@contextmanager
def batches(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Called with how many batches of how many are done."""
    with progress(quiet) as work:
        work.start(what, unit="batches")
        yield work.update
