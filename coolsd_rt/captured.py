"""What libraries say, kept away from what we say: their warnings, their log records, and what their native code prints.

An error of ours is one line, and a library's warnings before it hide it. So they are kept while a command runs, told
when it has succeeded, and dropped when it has failed: then the error says what there is to know. With COOLSD_TRACEBACK
set nothing is kept.

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
_MOST = 50  # lines kept: a library that warns at each step says the same again and again


class Kept:
    """Lines of libraries, each once, in their order."""

    def __init__(self) -> None:
        self.lines: dict[str, None] = {}

    def add(self, line: str) -> None:
        if len(self.lines) < _MOST:
            self.lines[" ".join(line.split())] = None

    def tell(self, say: Callable[[str], None]) -> None:
        """Give each line to `say`, in order."""
        for line in self.lines:
            say(line)


@contextlib.contextmanager
def kept_words() -> Iterator[Kept]:
    """Keep Python warnings, and log records that would go to the terminal. Ours go through `note` and are not kept."""
    kept = Kept()
    if os.environ.get(TRACEBACK):
        yield kept
        return
    shown, emitted = warnings.showwarning, logging.StreamHandler.emit

    def show(message: Warning | str, category: type[Warning], *args: Any, **more: Any) -> None:
        kept.add(f"warning: {category.__name__}: {message}")

    def emit(handler: logging.StreamHandler[Any], record: logging.LogRecord) -> None:
        if not _is_terminal_side(handler.stream):  # a file of its own, a test's list
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
    """Add the last lines that native code writes to the standard error to a list, at the end.

    Python's own `sys.stderr` is not touched. Nothing is caught where there is no such stream.
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
    """`sys.stderr` on another descriptor for a while, if it is the stream that is caught."""
    before: TextIO | None = sys.stderr
    try:
        caught = before is not None and before.fileno() == 2
    except (OSError, ValueError):  # not a stream of the system
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
