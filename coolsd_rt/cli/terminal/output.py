"""The only place that prints: lines, tables, errors, and JSON.

Results go to stdout, progress and notes go to stderr, and every line passes through `visible`. rich is imported where
a table is drawn: `--help` does without it.

Knows streams, tables and errors. Does not know verbs.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from coolsd_rt.cli.terminal.text import visible, visible_text
from coolsd_rt.errors import CoolsdError


def _write(stream: TextIO | None, line: str) -> None:
    if stream is None:  # closed by the caller (`>&-`)
        return
    encoding = stream.encoding or "utf-8"
    stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def say(line: object = "") -> None:
    """A line of the result, on stdout."""
    _write(sys.stdout, visible(line))


def say_lines(text: str) -> None:
    """A text of several lines, on stdout."""
    for line in text.split("\n"):
        say(line)


def say_part(text: str) -> None:
    """A part of a text on stdout, as it comes: newlines and tabs are kept, and no line is ended."""
    if sys.stdout is None:
        return
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(visible_text(text).encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def note(line: object) -> None:
    """A line about the work, on stderr, so that it never mixes with a result."""
    _write(sys.stderr, visible(line))


def complain(error: CoolsdError) -> None:
    """An error on stderr: one line, or one for each of its problems where it has several."""
    for part in getattr(error, "problems", ()) or (error,):
        text = str(part) or type(error).__name__
        note(text if error.exit_code == 130 else f"error: {text}")


def _plain(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_json(document: Any) -> None:
    """The one document on stdout. It is ASCII: what a terminal would obey is escaped by JSON itself."""
    _write(sys.stdout, json.dumps(_plain(document), indent=2, default=str, ensure_ascii=True))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Rows on stdout: a table on a terminal that is wide enough, `a  b  c` lines elsewhere. No cell is ever cut."""
    columns, cells = [visible(column) for column in columns], [[visible(cell) for cell in row] for row in rows]
    drawn = sys.stdout is not None and sys.stdout.isatty()
    if drawn and _draw(columns, cells, visible(title)):
        return
    if title:
        say(title)
    body = [columns, *cells] if any(columns) else cells
    widths = [max(len(row[i]) for row in body) for i in range(len(columns))] if body else []
    for row in body:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]], title: str) -> bool:
    """A table by rich; False if the terminal is too narrow for it. `Text` is shown as it is: no markup is read."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    if sum(widths) + 3 * len(widths) + 1 > console.width:  # a bar and two spaces a column
        return False
    table = Table(
        *(Column(Text(column)) for column in columns),
        title=Text(title) if title else None,
        title_justify="left",
        show_header=any(columns),
    )
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    return True


def show_fields(fields: Mapping[str, object], title: str = "") -> None:
    """Name and value, a line each."""
    show_table(("", ""), list(fields.items()), title)
