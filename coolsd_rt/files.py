"""Files that a user or an engine names: opened in one place, so that none of them can hang, flood or confuse.

A name is a plain file or an error: a FIFO, a device and a socket are refused before a byte is read, since opening one
can wait for ever and reading one can go on for ever. A read has an upper end. JSON is read strictly: each key once, no
NaN, no infinity, no number that a float cannot hold, no half of a character, and no more levels than a document of ours
needs.

A file that a spec or an engine names stays in its folder. A link out of it is followed in one layout only, that of a
Hugging Face cache: REPO/snapshots/REVISION/.../NAME is a relative link to REPO/blobs/HASH (`hub_blob`).

Knows the operating system's files, the hub's cache and JSON. Does not know what is in them: `what` comes in as words.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import sys
from collections import Counter
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.limits import LINE_CHARACTERS, PROMPTS_BYTES

MIB = 1 << 20
MAX_JSON_DEPTH = 64
STDIN = Path("-")
LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes, on the usual file systems
_TEMPORARY = 16  # bytes that a file's name is longer by while it is written

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


def bad_name(name: str | Path) -> str:
    """Why a name can be no path, in words; empty if it can be one."""
    text = str(name)
    if not text:
        return "an empty name"
    if "\0" in text:
        return "a name with a NUL character"
    try:
        long = len(text.encode()) > _LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in text.split("/"))
    except UnicodeEncodeError:
        return "a name that is not UTF-8"
    return "a name that is too long" if long else ""


def why_unusable(path: Path) -> str:
    """Why a path is no plain file that can be opened, in words; empty if it is one. Never waits."""
    if wrong := bad_name(path):
        return wrong
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "nothing"
    except OSError as e:
        return e.strerror or str(e)
    return "" if stat.S_ISREG(mode) else kind_of(mode)


def special(path: Path) -> str:
    """The kind of what stands at a path, if that is neither a plain file nor a folder; else empty."""
    found = "" if not os.path.exists(path) else why_unusable(path)
    return "" if found == "a folder" else found


def check_target(path: Path, what: str = "a file to write", error: type[CoolsdError] = UserError) -> None:
    """Raise `error` where a file cannot be written without harm: over a folder, a device, a pipe or a socket.

    Files are written beside their place and renamed over it, so a device of that name would be lost.
    """
    found = bad_name(path)
    if not found and len(path.name.encode()) > LONGEST_NAME - _TEMPORARY:
        found = "a name that is too long"
    if not found and os.path.exists(path):
        found = why_unusable(path)
        # /dev/stdout is a link, to a plain file when standard output is redirected to one.
        if not found and os.path.islink(path) and path.absolute().parts[1:2] in (("dev",), ("proc",)):
            found = "a device"
    if found:
        fix = "name a file in it" if found == "a folder" else "name another file"
        raise error(str(path), expected=what, found=found, fix=fix)


def open_plain(path: Path, what: str, *, fix: str = "", error: type[CoolsdError] = UserError) -> BufferedReader:
    """Open a plain file for reading. what: what it should be, "a spec file".

    Raises `error`: nothing there, not a plain file, not to be opened. Never waits for a writer.
    """
    found = why_unusable(path)
    descriptor = -1
    if not found:
        # Opened without waiting, and looked at again: what stood there may have been replaced a moment ago.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            found = "nothing"
        except OSError as e:
            found = e.strerror or str(e)
        else:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                os.close(descriptor)
                found = kind_of(mode)
    if found:
        raise error(str(path), expected=what, found="no such file" if found == "nothing" else found, fix=fix)
    return os.fdopen(descriptor, "rb")


def read_bytes(
    path: Path, what: str, limit: int, *, fix: str = "", error: type[CoolsdError] = UserError, stdin: bool = False
) -> bytes:
    """All bytes of a plain file, at most `limit` of them. stdin: `-` is standard input, and /dev/fd/N may be a pipe.

    Raises `error`: as `open_plain`, or more than `limit` bytes.
    """
    try:
        if stdin and is_stream(path):
            data = _read_stream(path, what, limit, fix, error)
        else:
            with open_plain(path, what, fix=(stdin and pipe_fix(path)) or fix, error=error) as f:
                data = _at_most(f, limit)
    except OSError as e:
        raise error(str(path), expected=what, found=e.strerror or str(e), fix=fix) from e
    if len(data) > limit:
        found = f"more than {limit} bytes"
        raise error(str(path), expected=f"{what} of at most {limit} bytes", found=found, fix=fix)
    return data


def _at_most(f: BinaryIO, limit: int) -> bytes:
    """What is left of a file, and one byte more than `limit` at most. Memory grows with what is there."""
    data = bytearray()
    while len(data) <= limit and (piece := f.read(min(MIB, limit + 1 - len(data)))):
        data += piece
    return bytes(data)


def is_stream(path: Path) -> bool:
    """Standard input, or a pipe that the shell made: `<(...)` is /dev/fd/63."""
    return path == STDIN or str(path) == "/dev/stdin" or path.parent in (Path("/dev/fd"), Path("/proc/self/fd"))


def pipe_fix(path: Path) -> str:
    """What to type in the place of a named pipe, where standard input can be read; empty if the path is none."""
    return f"to read from a pipe give -, as in: ... - < {path}" if special(path) == "a named pipe" else ""


def _read_stream(path: Path, what: str, limit: int, fix: str, error: type[CoolsdError]) -> bytes:
    if path == STDIN:
        if sys.stdin is None:
            raise error("standard input", expected=what, found="a closed stream", fix=fix)
        return _at_most(sys.stdin.buffer, limit)
    with open(path, "rb") as f:
        return _at_most(f, limit)


def read_lines(path: Path, what: str = "a text file in UTF-8, one prompt a line", *, stdin: bool = True) -> list[str]:
    """The lines of a text file that are not empty, without the spaces around them. `-` is standard input.

    Raises UserError: as `read_text`, a NUL character, a line of more than `LINE_CHARACTERS`, no lines.
    """
    lines = []
    for number, line in enumerate(read_text(path, what, PROMPTS_BYTES, stdin=stdin).splitlines(), start=1):
        if "\0" in line:
            raise UserError(f"{path}:{number}", expected=what, found="a NUL character")
        if len(line) > LINE_CHARACTERS:
            expected = f"a line of at most {LINE_CHARACTERS} characters"
            raise UserError(f"{path}:{number}", expected=expected, found=f"{len(line)}")
        if text := line.strip():
            lines.append(text)
    if not lines:
        raise UserError(str(path), expected="one prompt a line", found="none")
    return lines


LINK_FIX = "copy the files themselves: cp -rL FOLDER COPY (from the hub: hf download REPO --local-dir FOLDER)"
"""What to type where a link is not followed."""


def hub_blob(link: Path) -> Path | None:
    """The file that a link in a Hugging Face snapshot stands for; None if the link may not be followed.

    It may if it is relative and leads in one step from REPO/snapshots/REVISION/.../NAME to a plain file in REPO/blobs.
    Its content has to be checked by whoever reads it (`blob_digest`, a manifest). Open what is returned, not the link.
    """
    try:
        text, folder = os.readlink(link), link.parent.resolve(strict=True)
        repository = next(above.parent for above in folder.parents if above.name == "snapshots")
        blob = Path(os.path.normpath(folder / text))
        inside = blob.parent == repository / "blobs" and not blob.parent.is_symlink() and not os.path.isabs(text)
        return blob if inside and stat.S_ISREG(os.lstat(blob).st_mode) else None
    except (OSError, ValueError, RuntimeError, StopIteration):  # RuntimeError: a loop of links
        return None


def blob_digest(path: Path) -> str | None:
    """The SHA-256 that a file in a hub's cache is named by; None of any other file. Large files are named so."""
    if re.fullmatch(r"[0-9a-f]{64}", path.name) and path.parent.name == "blobs":
        return path.name if (path.parent.parent / "snapshots").is_dir() else None
    return None


def inside(root: Path, name: str) -> Path | None:
    """The real path of `name` in the folder `root` (a resolved path), whether or not something is there.

    None: a link leads out of the folder, to something else than a hub's blob, or round in a circle.
    """
    path = root / name
    try:
        real = path.resolve()
        if real.is_relative_to(root):
            return None if os.path.islink(real) else real  # a link that is left after all were followed: a circle
        return hub_blob(path) if path.parent.resolve().is_relative_to(root) else None
    except (OSError, RuntimeError):
        return None


_CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini", ".gitattributes", ".cache", "README.md")


def is_clutter(name: str) -> bool:
    """Whether a name in a folder of ours is what file managers and the hub leave behind: nobody opens these."""
    return name in _CLUTTER or name.startswith("._")


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


def read_json(
    path: Path, what: str, limit: int, *, fix: str = "", error: type[CoolsdError] = UserError, stdin: bool = False
) -> Any:
    """The data of a JSON file. Raises `error`: as `read_text`, or not JSON as `parse_json` reads it."""
    try:
        return parse_json(read_text(path, what, limit, fix=fix, error=error, stdin=stdin))
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
        raise JsonError("half of a surrogate pair, which is not a character") from e
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
    raise JsonError(f"{word}, which is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError(f"the number {text[:30]}, too large for a float")
    return value
