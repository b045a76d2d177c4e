"""Files that a user or an engine names: opened in one place, so that none of them can hang, flood or confuse.

A name is a plain file or an error: a FIFO, a device and a socket are refused before a byte is read, since opening one
can wait for ever and reading one can go on for ever. A read has an upper end. JSON is read strictly: each key once, no
NaN, no infinity, no number that a float cannot hold, no half of a character, and no more levels than a document of ours
needs.

Knows the operating system's files and JSON. Does not know what is in them: `what` comes in as words.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import sys
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from coolsd_rt.errors import CoolsdError, UserError

MIB = 1 << 20
MAX_JSON_DEPTH = 64
STDIN = Path("-")

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class JsonError(ValueError):
    """Text that is not JSON as we read it; the message says what is wrong, in words."""


def kind_of(mode: int) -> str:
    """What `st_mode` says a path is: "a plain file", "a named pipe", ..."""
    return next((words for test, words in _KINDS if test(mode)), "a plain file")


def why_unusable(path: Path) -> str:
    """Why a path is no plain file that can be opened, in words; empty if it is one. Never waits."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "nothing"
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name
        return getattr(e, "strerror", None) or str(e)
    return "" if stat.S_ISREG(mode) else kind_of(mode)


def open_plain(path: Path, what: str, *, fix: str = "", error: type[CoolsdError] = UserError) -> BinaryIO:
    """Open a plain file for reading. what: what it should be, "a spec file".

    Raises `error`: nothing there, not a plain file, not to be opened. Never waits for a writer.
    """
    # What may hang is refused by what was opened, not by what stood there a moment before.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise error(str(path), expected=what, found="no such file", fix=fix) from None
    except (OSError, ValueError) as e:
        found = getattr(e, "strerror", None) or str(e)
        raise error(str(path), expected=what, found=found, fix=fix) from e
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise error(str(path), expected=what, found=kind_of(mode), fix=fix)
    return os.fdopen(descriptor, "rb")


def read_bytes(
    path: Path, what: str, limit: int, *, fix: str = "", error: type[CoolsdError] = UserError, stdin: bool = False
) -> bytes:
    """All bytes of a plain file, at most `limit` of them. stdin: `-` is standard input, and /dev/fd/N may be a pipe.

    Raises `error`: as `open_plain`, or more than `limit` bytes.
    """
    if stdin and _is_stream(path):
        data = _read_stream(path, what, limit, fix, error)
    else:
        with open_plain(path, what, fix=fix, error=error) as f:
            try:
                data = _at_most(f, limit + 1)
            except OSError as e:
                raise error(str(path), expected=what, found=e.strerror or str(e), fix=fix) from e
    if len(data) > limit:
        found = f"more than {limit} bytes"
        raise error(str(path), expected=f"{what} of at most {limit} bytes", found=found, fix=fix)
    return data


def _at_most(file: BinaryIO, count: int) -> bytes:
    """The next `count` bytes, or all there are. Takes memory for what is there: `read(count)` would for `count`."""
    parts = []
    while count > 0 and (part := file.read(min(count, MIB))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _is_stream(path: Path) -> bool:
    """Standard input, or a pipe that the shell made: `<(...)` is /dev/fd/63."""
    return path == STDIN or str(path) == "/dev/stdin" or path.parent in (Path("/dev/fd"), Path("/proc/self/fd"))


def _read_stream(path: Path, what: str, limit: int, fix: str, error: type[CoolsdError]) -> bytes:
    try:
        if path == STDIN:
            if sys.stdin is None:
                raise error("standard input", expected=what, found="it closed", fix=fix)
            return _at_most(sys.stdin.buffer, limit + 1)
        with open(path, "rb") as f:
            return _at_most(f, limit + 1)
    except OSError as e:
        raise error(str(path), expected=what, found=e.strerror or str(e), fix=fix) from e


def read_text(
    path: Path, what: str, limit: int, *, fix: str = "", error: type[CoolsdError] = UserError, stdin: bool = False
) -> str:
    """The text of a UTF-8 file (a byte order mark is dropped). Raises `error`: as `read_bytes`, or not UTF-8."""
    data = read_bytes(path, what, limit, fix=fix, error=error, stdin=stdin)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data[: e.start].count(b"\n") + 1
        found = f"byte 0x{data[e.start]:02x} on line {line}, which is not UTF-8"
        raise error(str(path), expected=what, found=found, fix=fix or "save the file as UTF-8") from e


def read_json(path: Path, what: str, limit: int, *, fix: str = "", error: type[CoolsdError] = UserError) -> Any:
    """The data of a JSON file. Raises `error`: as `read_text`, or not JSON as `parse_json` reads it."""
    try:
        return parse_json(read_text(path, what, limit, fix=fix, error=error))
    except JsonError as e:
        raise error(str(path), expected=what, found=str(e), fix=fix) from e


def parse_json(text: str | bytes) -> Any:
    """JSON text as plain data, read strictly.

    Raises JsonError: not JSON, a key twice, NaN or an infinity (1e400 too), an integer of more than 4300 digits, deeper
    than `MAX_JSON_DEPTH`.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as e:
            raise JsonError(f"byte 0x{text[e.start]:02x}, which is not UTF-8") from e
    _check_depth(text)
    try:
        data = json.loads(text, object_pairs_hook=_each_once, parse_constant=_no_constant, parse_float=_finite)
        if _SURROGATE.search(text):
            json.dumps(data, ensure_ascii=False).encode()
        return data
    except JsonError:
        raise
    except UnicodeEncodeError as e:
        raise JsonError("half of a surrogate pair, which is no character") from e
    except json.JSONDecodeError as e:
        raise JsonError(f"text that is not JSON (line {e.lineno}: {e.msg})") from e
    except (ValueError, RecursionError) as e:
        raise JsonError("a number too long to read" if isinstance(e, ValueError) else "too many levels") from e


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


def _check_depth(text: str) -> None:
    """Count brackets outside strings: the parser itself recurses, and ends in a RecursionError."""
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group()[0], 0)
        if depth > MAX_JSON_DEPTH:
            raise JsonError(f"more than {MAX_JSON_DEPTH} levels")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise JsonError(f"the key {twice[:60]!r} twice")
    return data


def _no_constant(word: str) -> Any:
    raise JsonError(f"{word}, which is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError(f"the number {text[:30]}, too large for a float")
    return value
