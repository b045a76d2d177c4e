"""What TensorRT says while it works, kept for the one line of an error instead of a terminal.

Knows its logger and that its compiler writes to the standard error by itself. Does not know what is being built.
"""

from __future__ import annotations

import re
from collections import deque
from contextlib import AbstractContextManager
from typing import Any, Protocol

from coolsd_rt import captured

_KEPT = 50
_LONGEST = 300
# Said on every machine without a GPU, also where none is needed.
_NOISE = re.compile(r"\[checkMacros\S*catchCudaError.*", re.DOTALL)
_PLACES = re.compile(r"^(I\w+::\w+: )?Error Code \d+: |\(?In \w+ at /\S+:\d+ ?|\[\w+\.\w+(pp|h):\d+: \w+\] ")


class Log(Protocol):
    """A logger, and what it kept: `errors` are the last lines of that severity, `words` what came past it."""

    errors: deque[str]
    words: list[str]


def make_log(trt: Any) -> Log:
    """A logger of the package `trt` that keeps errors and says nothing."""

    class _Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: deque[str] = deque(maxlen=_KEPT)
            self.words: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(msg)

    return _Log()


def reason(log: Log) -> str:
    """The last error that means something, as one short line."""
    said = [line for line in (*log.words, *log.errors) if line.strip()]
    telling = [line for line in said if not _NOISE.match(line)] or said
    return shorten(telling[-1]) if telling else "no reason given"


def shorten(text: str) -> str:
    """One line, without places in TensorRT's own source, cut where it gets long."""
    line = " ".join(_PLACES.sub("", _NOISE.sub("", text.strip()) or text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def native_words(log: Log) -> AbstractContextManager[None]:
    """Keep what native code writes to the standard error in `log.words`.

    TensorRT's compiler reports its failures there, past any logger.
    """
    return captured.native_words(log.words, _KEPT)
