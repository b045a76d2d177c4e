"""Opens and reads files that a user or an engine names, such that none can block, flood memory or confuse a parser.

Only plain files are opened: FIFOs, devices and sockets are refused before a byte is read, since opening or reading them
can block forever. Every read has a size limit. JSON is read strictly: no repeated keys, no NaN or infinity, no number
that overflows a float, no lone surrogate, limited depth.

A file that a spec or an engine names must be in its folder. A link out of the folder is followed only in the layout of
the Hugging Face cache: REPO/snapshots/REVISION/.../NAME is a relative link to REPO/blobs/HASH (`hub_blob`).

Knows the operating system's files, the hub's cache and JSON. Does not know the contents: `what` describes them.
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
LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes, limits of common file systems
_TEMPORARY = 16  # bytes that are added to a file's name while it is written

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class JsonError(ValueError):
    """The text is not valid strict JSON; the message says why."""


def kind_of(mode: int) -> str:
    """Describe the kind of a path by its `st_mode`: "a plain file", "a named pipe", ..."""
    return next((words for test, words in _KINDS if test(mode)), "a plain file")


def bad_name(name: str | Path) -> str:
    """Return the reason why a name cannot be a path; empty if it can."""
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
    """Return the reason why a path is not a plain file that can be opened; empty if it is. Never blocks."""
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
    """Return the kind of a path that is neither a plain file nor a folder; else empty."""
    found = "" if not os.path.exists(path) else why_unusable(path)
    return "" if found == "a folder" else found


def check_target(path: Path, what: str = "a file to write", error: type[CoolsdError] = UserError) -> None:
    """Raise `error` if writing `path` would do harm: to a folder, a device, a pipe or a socket.

    Files are written under a temporary name and renamed, which would replace a device.
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
    """Open a plain file for reading. what: the expected content, such as "a spec file".

    Raises `error` if the file does not exist, is not plain, or cannot be opened. Never waits for a writer.
    """
    found = why_unusable(path)
    descriptor = -1
    if not found:
        # Open without blocking, then check the kind again: the file may have been replaced since the first check.
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
    """Read all bytes of a plain file, at most `limit`. stdin: `-` is standard input, and /dev/fd/N may be a pipe.

    Raises `error` as `open_plain` does, or for more than `limit` bytes.
    """
    try:
        if stdin and is_stream(path):
            data = _read_stream(path, what, limit, fix, error)
        else:
            with open_plain(path, what, fix=(stdin and pipe_fix(path)) or fix, error=error) as f:
                data = _at_most(f, limit, os.fstat(f.fileno()).st_size)
    except OSError as e:
        raise error(str(path), expected=what, found=e.strerror or str(e), fix=fix) from e
    if len(data) > limit:
        found = f"more than {limit} bytes"
        raise error(str(path), expected=f"{what} of at most {limit} bytes", found=found, fix=fix)
    return data


def _at_most(f: BinaryIO, limit: int, size: int = 0) -> bytes:
    """Read the rest of a file, at most `limit` + 1 bytes, without copies if `size` is said. Memory grows with them."""
    pieces = [f.read(min(limit, size) + 1)]
    while pieces[-1] and (left := limit + 1 - sum(map(len, pieces))) > 0:
        pieces.append(f.read(min(MIB, left)))
    return b"".join(pieces) if any(pieces[1:]) else pieces[0]


def is_stream(path: Path) -> bool:
    """Whether a path is standard input, or a pipe of the shell: `<(...)` is /dev/fd/63."""
    return path == STDIN or str(path) == "/dev/stdin" or path.parent in (Path("/dev/fd"), Path("/proc/self/fd"))


def pipe_fix(path: Path) -> str:
    """Return what to type instead of a named pipe, if standard input is supported; empty for other paths."""
    return f"to read from a pipe give -, as in: ... - < {path}" if special(path) == "a named pipe" else ""


def _read_stream(path: Path, what: str, limit: int, fix: str, error: type[CoolsdError]) -> bytes:
    if path == STDIN:
        if sys.stdin is None:
            raise error("standard input", expected=what, found="a closed stream", fix=fix)
        return _at_most(sys.stdin.buffer, limit)
    with open(path, "rb") as f:
        return _at_most(f, limit)


def read_lines(path: Path, what: str = "a text file in UTF-8, one prompt a line", *, stdin: bool = True) -> list[str]:
    """Return the non-empty lines of a text file, stripped. `-` is standard input.

    Raises UserError as `read_text` does, or for a NUL character, a line above `LINE_CHARACTERS`, or no lines.
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
"""The fix shown for a link that is not followed."""


def hub_blob(link: Path) -> Path | None:
    """Return the file that a link in a Hugging Face snapshot points to; None if the link must not be followed.

    It is followed if it is relative and leads in one step from REPO/snapshots/REVISION/.../NAME to a plain file in
    REPO/blobs. The reader has to check the content (`blob_digest`, a manifest). Open the returned path, not the link.
    """
    try:
        text, folder = os.readlink(link), link.parent.resolve(strict=True)
        repository = next(above.parent for above in folder.parents if above.name == "snapshots")
        blob = Path(os.path.normpath(folder / text))
        inside = blob.parent == repository / "blobs" and not blob.parent.is_symlink() and not os.path.isabs(text)
        return blob if inside and stat.S_ISREG(os.lstat(blob).st_mode) else None
    except (OSError, ValueError, RuntimeError, StopIteration):  # RuntimeError: circular links
        return None


def blob_digest(path: Path) -> str | None:
    """Return the SHA-256 in the name of a file in a hub's cache, which large files have; None for any other file."""
    if re.fullmatch(r"[0-9a-f]{64}", path.name) and path.parent.name == "blobs":
        return path.name if (path.parent.parent / "snapshots").is_dir() else None
    return None


def inside(root: Path, name: str) -> Path | None:
    """Return the real path of `name` in the folder `root` (a resolved path), whether or not it exists.

    None: a link leads out of the folder to something other than a hub blob, or in a circle.
    """
    path = root / name
    try:
        real = path.resolve()
        if real.is_relative_to(root):
            return None if os.path.islink(real) else real  # still a link after resolving: circular
        return hub_blob(path) if path.parent.resolve().is_relative_to(root) else None
    except (OSError, RuntimeError):
        return None


_CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini", ".gitattributes", ".cache", "README.md")


def is_clutter(name: str) -> bool:
    """Whether a file name is one that file managers or the hub leave behind, which is ignored."""
    return name in _CLUTTER or name.startswith("._")


def read_text(
    path: Path, what: str, limit: int, *, fix: str = "", error: type[CoolsdError] = UserError, stdin: bool = False
) -> str:
    """Return the text of a UTF-8 file without its byte order mark. Raises `error` as `read_bytes`, or if not UTF-8."""
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
    """Return the data of a JSON file. Raises `error` as `read_text` does, or if `parse_json` refuses it."""
    try:
        return parse_json(read_text(path, what, limit, fix=fix, error=error, stdin=stdin))
    except JsonError as e:
        raise error(str(path), expected=what, found=str(e), fix=fix) from e


def parse_json(text: str | bytes) -> Any:
    """Parse JSON text strictly.

    Raises JsonError: not JSON, a repeated key, NaN or infinity (1e400 too), an integer of more than 4300 digits, or
    more nesting than `MAX_JSON_DEPTH`.
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
    """Count brackets outside strings, because the parser is recursive and would end in a RecursionError."""
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
