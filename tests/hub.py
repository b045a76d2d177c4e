"""A folder as the Hugging Face hub keeps it in its cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def as_snapshot(folder: Path, repository: Path) -> Path:
    """The files of a folder as the hub keeps them: blobs by their SHA-256 (git's hash of small ones), and links."""
    snapshot = repository / "snapshots" / ("a" * 40)
    (repository / "blobs").mkdir(parents=True)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"):
        data, link = path.read_bytes(), snapshot / path.relative_to(folder)
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        blob = repository / "blobs" / (git if path.suffix in (".json", "") else hashlib.sha256(data).hexdigest())
        blob.write_bytes(data)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot
