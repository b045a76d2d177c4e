"""A server's processes by their part in it: their memory and their time.

Knows `/proc`. Does not know what the processes are asked for.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tools.load.server import children

_TICKS = os.sysconf("SC_CLK_TCK")
_PARTS = (
    ("replica", rb"^ray::ServeReplica:.*:engine-"),
    ("front", rb"^ray::ServeReplica:.*:front"),
    ("proxy", rb"^ray::ProxyActor"),
    ("controller", rb"^ray::ServeController"),
    ("replica", rb"engine_process"),
    ("front", rb"coolsd_rt\.cli"),
)
"""Parts by what their command line has; of a plain server the engine's process is the replica. Others are Ray's own."""


def tree(root: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield root
    for child in children(root):
        yield from tree(child)


def part_of(pid: int, root: int, on_ray: bool) -> str:
    """Return the part of a process. The process of the command is `front`, or `command` where Ray has another front."""
    if pid == root:
        return "command" if on_ray else "front"
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "gone"
    return next((part for part, pattern in _PARTS if re.search(pattern, words)), "ray")


def memory(root: int, on_ray: bool) -> dict[str, int]:
    """Return the proportional set size of each part in bytes: pages that several processes share count in part."""
    found: Counter[str] = Counter()
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        found[part_of(pid, root, on_ray)] += 1024 * int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])  # type: ignore[index]
    return dict(found)


def cpu_seconds(root: int, on_ray: bool) -> dict[str, float]:
    """Return the processor time of each part so far."""
    found: Counter[str] = Counter()
    for pid in tree(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[part_of(pid, root, on_ray)] += (int(fields[11]) + int(fields[12])) / _TICKS  # type: ignore[assignment]
    return {part: float(seconds) for part, seconds in found.items()}


def replica_of(root: int) -> int | None:
    """Return a process with an engine; None if there is none now."""
    return next((pid for pid in tree(root) if part_of(pid, root, True) == "replica"), None)
