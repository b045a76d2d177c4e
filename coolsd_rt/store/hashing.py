"""SHA-256 of files and of JSON data. Knows bytes, nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256_file(path: Path) -> str:
    """Hex digest of a file's contents, read in pieces."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical(data: Any) -> bytes:
    """JSON data as the one byte string that stands for it: keys sorted, no spaces. Raises ValueError on NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_json(data: Any) -> str:
    return sha256_bytes(canonical(data))
