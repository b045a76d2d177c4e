"""The server's log: lines for people, or one JSON object a line, written by a thread of their own.

Whoever logs never waits for the reader of the log: when too many lines wait, new ones are dropped and counted. No line
has a prompt or a key. Knows lines. Does not know where they are written.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

_MOST = 10_000  # lines that may wait


class LogLines:
    """Formats and writes lines. say: writes one line. as_json: JSON objects."""

    def __init__(self, say: Callable[[str], None], as_json: bool) -> None:
        self._say, self._json = say, as_json
        self._lines: queue.Queue[str | None] = queue.Queue(_MOST)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def info(self, event: str, **values: Any) -> None:
        """Log something usual. event: a few words; values: what is to be told of it."""
        self.put("info", event, values)

    def error(self, event: str, **values: Any) -> None:
        """Log something that somebody should look at."""
        self.put("error", event, values)

    def failure(self, event: str, error: BaseException) -> None:
        """Log an exception with its traceback, in one line of JSON or several of text."""
        self.error(event, trace="".join(traceback.format_exception(error)))

    def close(self) -> None:
        """Write what waits, for at most two seconds."""
        try:
            self._lines.put(None, timeout=1)
            self._thread.join(timeout=1)
        except queue.Full:
            pass

    def put(self, level: str, event: str, values: dict[str, Any]) -> None:
        """Log something of a level: info, warning or error."""
        moment = time.time()
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z"
        if self._json:
            lines = [json.dumps({"time": at, "level": level, "event": event, **values}, default=str)]
        else:
            trace = str(values.pop("trace", "")).splitlines()
            told = " ".join(f"{key}={value}" for key, value in values.items() if value is not None)
            lines = [" ".join(filter(None, (at, level, event, told))), *(f"    {line}" for line in trace)]
        for line in lines:
            self.line(line)

    def line(self, text: str) -> None:
        """Write a line that is formatted already."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._say(line)
                if self._dropped:
                    count, self._dropped = self._dropped, 0
                    self._say(f"{count} lines of the log were dropped: its reader is too slow")
            except (OSError, ValueError):  # nobody reads any more
                return


class LogHandler(logging.Handler):
    """Takes the records of libraries into the server's log."""

    def __init__(self, lines: LogLines) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record."""
        more = {}
        if record.exc_info and record.exc_info[1] is not None:
            more["trace"] = "".join(traceback.format_exception(record.exc_info[1]))
        self._lines.put(record.levelname.lower(), f"{record.name}: {record.getMessage()}", more)
