"""The progress bar on a terminal: rich's, fitted to the terminal of any width.

It drops its parts one by one before a line would wrap. Imported where there is a terminal alone. Knows rich. Does not
know what is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console
from rich.progress import Progress, Task
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coolsd_rt.cli.terminal.tally import counts, left
from coolsd_rt.cli.terminal.text import fit

_WINDOW = math.inf  # seconds that the speed is taken over: a step may take hours; rich keeps the last 1000 steps
_WIDEST, _NARROWEST = 40, 10  # of the bar itself


class Bar(Progress):
    """rich's progress display, fitted to the terminal width.

    It is gone at the end, and its speed is the mean of all steps.
    """

    def __init__(self, console: Console, **more: Any) -> None:
        super().__init__(console=console, transient=True, speed_estimate_period=_WINDOW, refresh_per_second=5, **more)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Return the line of each stage."""
        grid = Table.grid(padding=(0, 1))
        for task in tasks:
            grid.add_row(*_cells(task, self.console.width - 1))
        return grid


def _cells(task: Task, width: int) -> list[Any]:
    """What a stage shows in so many columns. It gives up, in this order: its figures, the bar, words of its name."""
    what, figures = task.description, str(task.fields["figures"])
    fixed = [cell for cell in (counts(task), left(task)) if cell]
    room = width - sum(len(cell) + 1 for cell in fixed)
    if len(what) + _NARROWEST + len(figures) + 2 > room:
        figures = ""
    bar = min(_WIDEST, room - len(what) - 1 - (len(figures) + 1 if figures else 0))
    if bar < _NARROWEST:
        return [Text(cell, no_wrap=True) for cell in (fit(what, room), *fixed) if cell]
    drawn = ProgressBar(task.total, task.completed, bar, pulse=task.total is None, animation_time=task.get_time())
    return [Text(what, no_wrap=True), drawn, *(Text(cell, no_wrap=True) for cell in (*fixed, figures) if cell)]


def bar_on(stream: TextIO) -> Bar | None:
    """Return the bar of a terminal; None of one that cannot redraw a line."""
    console = Console(file=stream, highlight=False)
    return None if console.is_dumb_terminal else Bar(console)
