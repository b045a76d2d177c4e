"""Capture TensorRT's messages for the one line of an error, instead of printing them.

Knows TensorRT's logger, and that its compiler writes to the standard error directly. Does not know what is being built.
"""

from __future__ import annotations

import re
from collections import deque
from contextlib import AbstractContextManager
from typing import Any, Protocol

from coolsd_rt import captured

_KEPT = 50
_LONGEST = 300
# Logged on every machine without a GPU, even if none is needed.
_NOISE = re.compile(r"\[checkMacros\S*catchCudaError.*", re.DOTALL)
_PLACES = re.compile(r"^(I\w+::\w+: )?Error Code \d+: |\(?In \w+ at /\S+:\d+ ?|\[\w+\.\w+(pp|h):\d+: \w+\] ")


class Log(Protocol):
    """A logger and its records: `errors` are its last errors, `words` is the output that bypassed the logger."""

    errors: deque[str]
    words: list[str]


def make_log(trt: Any) -> Log:
    """Return a logger for the package `trt` that records errors and prints nothing."""

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
    """Return the last meaningful error as one short line."""
    said = [line for line in (*log.words, *log.errors) if line.strip()]
    telling = [line for line in said if not _NOISE.match(line)] or said
    return shorten(telling[-1]) if telling else "no reason given"


def shorten(text: str) -> str:
    """Return text as one line without TensorRT source locations, truncated if it is long."""
    line = " ".join(_PLACES.sub("", _NOISE.sub("", text.strip()) or text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def native_words(log: Log) -> AbstractContextManager[None]:
    """Capture the standard error of native code in `log.words` inside the context.

    TensorRT's compiler reports failures there, not through a logger.
    """
    return captured.native_words(log.words, _KEPT)
