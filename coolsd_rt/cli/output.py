"""What every verb prints with: a table or a progress bar on a terminal, plain lines elsewhere, JSON when asked.

Rule: with --json, stdout holds one JSON document and nothing else. Progress and notes go to stderr always.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """The option every verb has; arrives as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, nothing else.")(
        function
    )


def _plain(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_json(document: Any) -> None:
    """The one document on stdout."""
    click.echo(json.dumps(_plain(document), indent=2, default=str))


def say(line: str) -> None:
    """A line of the result, on stdout."""
    click.echo(line)


def note(line: str) -> None:
    """A line about the work, on stderr, so that it never mixes with a result."""
    click.echo(line, err=True)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Rows on stdout: a table on a terminal, `a  b  c` lines elsewhere."""
    cells = [[str(cell) for cell in row] for row in rows]
    if sys.stdout is not None and sys.stdout.isatty():
        table = Table(*columns, title=title or None, title_justify="left", show_header=any(columns))
        for row in cells:
            table.add_row(*(click.unstyle(cell).replace("[", r"\[") for cell in row))
        Console().print(table)
        return
    if title:
        say(title)
    body = [list(columns), *cells] if any(columns) else cells
    widths = [max(len(row[i]) for row in body) for i in range(len(columns))] if body else []
    for row in body:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_fields(fields: dict[str, object], title: str = "") -> None:
    """Name and value, a line each."""
    show_table(("", ""), list(fields.items()), title)


def progress(*extra: ProgressColumn, quiet: bool = False) -> Progress:
    """A progress bar on stderr; draws nothing when stderr is no terminal or `quiet`."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), *extra, TimeElapsedColumn())
    return Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True)


@contextmanager
def batches(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Called with how many batches of how many are done: a bar on a terminal, lines elsewhere unless `quiet`."""
    with progress(MofNCompleteColumn()) as bar:
        task = bar.add_task(what, total=None)

        def on_batch(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)
            if bar.disable and not quiet:
                note(f"batch {done} of {of}")

        yield on_batch
