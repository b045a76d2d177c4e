"""The folder of this user's cache: plans, and files of packages. Knows environment variables. Makes nothing."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `COOLSD_CACHE`, else `coolsd-rt` in `XDG_CACHE_HOME` or ~/.cache. Raises RuntimeError without a home."""
    if own := os.environ.get("COOLSD_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "coolsd-rt"
