"""Captures output of libraries: Python warnings, log records, and output of native code.

An error of this package is one line, which library warnings would hide. Captured lines are shown after a command has
succeeded, and dropped if it fails, because the error then contains what matters. With COOLSD_TRACEBACK set nothing is
captured.

Knows Python's warnings and logging, and file descriptor 2. Does not know which libraries there are.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

TRACEBACK = "COOLSD_TRACEBACK"
_MOST = 50  # limit of stored lines: a library may warn at every step


class Kept:
    """Captured lines, without repetitions, in order."""

    def __init__(self) -> None:
        self.lines: dict[str, None] = {}

    def add(self, line: str) -> None:
        """Add a line; ignored if it is known or `_MOST` lines are stored."""
        if len(self.lines) < _MOST:
            self.lines[" ".join(line.split())] = None

    def tell(self, say: Callable[[str], None]) -> None:
        """Call `say` with each line, in order."""
        for line in self.lines:
            say(line)


@contextlib.contextmanager
def kept_words() -> Iterator[Kept]:
    """Capture Python warnings, and log records that would go to the terminal.

    `note` of this package is not captured.
    """
    kept = Kept()
    if os.environ.get(TRACEBACK):
        yield kept
        return
    shown, emitted = warnings.showwarning, logging.StreamHandler.emit

    def show(message: Warning | str, category: type[Warning], *args: Any, **more: Any) -> None:
        kept.add(f"warning: {category.__name__}: {message}")

    def emit(handler: logging.StreamHandler[Any], record: logging.LogRecord) -> None:
        if not _is_terminal_side(handler.stream):  # not the terminal, such as a log file
            emitted(handler, record)
        else:
            kept.add(f"{record.levelname.lower()}: {record.name}: {record.getMessage()}")

    warnings.showwarning = show
    logging.StreamHandler.emit = emit  # type: ignore[method-assign, assignment]
    try:
        yield kept
    finally:
        warnings.showwarning = shown
        logging.StreamHandler.emit = emitted  # type: ignore[method-assign]


def _is_terminal_side(stream: object) -> bool:
    """Whether a stream is the standard output or error, under whatever name."""
    if stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        return True
    try:
        return stream.fileno() in (1, 2)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


@contextlib.contextmanager
def native_words(into: list[str], most: int = _MOST) -> Iterator[None]:
    """Capture what native code writes to the standard error; at the end append the last `most` lines to `into`.

    Python's `sys.stderr` is not captured. Has no effect if there is no standard error.
    """
    try:
        terminal = os.dup(2)
    except OSError:
        yield
        return
    with tempfile.TemporaryFile() as sink, _python_stderr(terminal):
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            sink.seek(0)
            into += sink.read().decode("utf-8", "replace").splitlines()[-most:]


@contextlib.contextmanager
def _python_stderr(terminal: int) -> Iterator[None]:
    """Redirect `sys.stderr` to another descriptor, if it is the stream that is captured."""
    before: TextIO | None = sys.stderr
    try:
        caught = before is not None and before.fileno() == 2
    except (OSError, ValueError):  # not a stream with a descriptor
        caught = False
    if not caught or before is None:
        yield
        return
    before.flush()
    with os.fdopen(os.dup(terminal), "w", buffering=1, encoding=before.encoding, errors="replace") as stream:
        sys.stderr = stream
        try:
            yield
        finally:
            sys.stderr = before
