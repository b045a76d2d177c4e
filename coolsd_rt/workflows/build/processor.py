"""This machine's processor in one line: what measured times, and sums that overflow, depend on.

Reads Linux's own file under a root that a test can put elsewhere; another system has only what Python says. Does not
know what is measured.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm", "sve")
_MOST = 160  # characters of a model's name


def processor(root: Path = Path("/")) -> str:
    """Architecture, model and the instructions that products of int8 use: `x86_64, Intel(R) Xeon(R), avx2 avx512f`.

    root: where `proc` is.
    """
    try:
        with (root / "proc/cpuinfo").open("rb") as file:
            text = file.read(1 << 16).decode("ascii", "replace")
    except OSError:
        text = ""
    name = _field(text, ("model name", "Model", "CPU part")) or platform.processor() or "unknown model"
    flags = _field(text, ("flags", "Features")).split()
    found = " ".join(f for f in _FEATURES if f in flags)
    model = re.sub(r"[^\x20-\x7e]|\s+", " ", name).strip()[:_MOST]
    return ", ".join(part for part in (platform.machine(), model, found) if part)


def _field(text: str, names: tuple[str, ...]) -> str:
    """The first of these lines of /proc/cpuinfo; empty where there is none."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() in names:
            return value.strip()
    return ""
