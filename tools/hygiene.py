"""Check text files before a commit: one line break at the end, no trailing space, no conflict mark, no large file.

    python tools/hygiene.py FILE...

Knows bytes. Does not know what a file is for, but for the few kinds whose bytes are not ours to change.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LARGE = 1 << 20
"""Bytes of the largest file that may be added. The demo's weights are older than this rule."""

WEIGHTS = "pipelines/emoji/"
MADE = (".svg", ".png", ".safetensors", ".json")
"""Kinds of files that programs write: only their size counts."""

_CONFLICT = re.compile(rb"^(<{7} |>{7} |={7}$)", re.MULTILINE)
_TRAILING = re.compile(rb"[ \t\r]+$", re.MULTILINE)


def problems(name: str, content: bytes) -> list[str]:
    """What is wrong with a file, a line each; empty if nothing is. name: its path in the repository."""
    found = []
    if len(content) > LARGE and not name.startswith(WEIGHTS):
        found.append(f"{name}: expected at most {LARGE} bytes, found {len(content)}")
    if name.endswith(MADE) or not content:
        return found
    for what, pattern in (("no conflict marks", _CONFLICT), ("no space at the end of a line", _TRAILING)):
        if match := pattern.search(content):
            line = content[: match.start()].count(b"\n") + 1
            found.append(f"{name}:{line}: expected {what}")
    if not content.endswith(b"\n") or content.endswith(b"\n\n"):
        found.append(f"{name}: expected one line break at the end")
    return found


def main() -> None:
    """Entry point: exit code 1 and a line for each problem."""
    files = [path for path in map(Path, sys.argv[1:]) if path.is_file() and not path.is_symlink()]
    found = [line for path in files for line in problems(path.as_posix(), path.read_bytes())]
    sys.exit("\n".join(found) if found else 0)


if __name__ == "__main__":
    main()
