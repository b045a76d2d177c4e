"""Progress of a long verb on stderr: a progress bar on a terminal, periodic lines elsewhere.

Both show the completed and the total count and the estimated remaining time. Without a terminal a stage prints its
size at the start, one line at most every `EVERY` seconds, and its size again at the end; rich, which draws the bar, is
not imported then.

Knows stages and streams. Does not know what is counted.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import TYPE_CHECKING, Any

from coolsd_rt.cli.terminal.output import note
from coolsd_rt.cli.terminal.tally import Stage, Tally, duration, left
from coolsd_rt.cli.terminal.text import visible

if TYPE_CHECKING:
    from coolsd_rt.cli.terminal.bar import Bar

__all__ = ["EVERY", "Work", "batches", "duration", "progress"]

EVERY = 10.0
"""Seconds from one line to the next where there is no terminal."""


class Work:
    """Consecutive stages, each with a name, a size and a completed count."""

    def __init__(self, bar: Bar | Tally, quiet: bool) -> None:
        self._bar, self._lines = bar, bar.disable and not quiet
        self._task: Any = None  # key of the stage
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
    def _now(self) -> Stage:
        if self._task is None:
            self.start("working")
        return next(task for task in self._bar.tasks if task.id == self._task)

    def _say_how_far(self, task: Stage) -> None:
        done = f"{task.completed:.0f}" + ("" if task.total is None else f" of {task.total:.0f}")
        parts = (f"{done} {self._unit}".rstrip(), str(task.fields["figures"]), left(task) and f"about {left(task)}")
        self._line(f"{task.description}: {', '.join(part for part in parts if part)}")

    def _line(self, line: str) -> None:
        note(line)
        self._said, self._next = True, monotonic() + EVERY


@contextmanager
def progress(quiet: bool = False) -> Iterator[Work]:
    """Show how far the work inside is. quiet: show nothing."""
    bar: Bar | Tally | None = None
    if not quiet and sys.stderr is not None and sys.stderr.isatty():
        from coolsd_rt.cli.terminal.bar import bar_on

        bar = bar_on(sys.stderr)
    bar = bar or Tally(lambda: monotonic())
    with nullcontext() if isinstance(bar, Tally) else bar:
        yield Work(bar, quiet)


@contextmanager
def batches(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Called with how many batches of how many are done."""
    with progress(quiet) as work:
        work.start(what, unit="batches")
        yield work.update
