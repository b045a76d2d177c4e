"""SHA-256 of files and of JSON data. Knows bytes and the file names of the hub's cache; nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import blob_digest, open_plain


def sha256_file(path: Path, error: type[CoolsdError] = UserError) -> str:
    """Return the hex digest of a plain file's contents, read in chunks.

    Raises `error` if the file is not plain, or if it is in the hub's cache and does not match the digest in its name.
    """
    with open_plain(path, "a file to read", error=error) as f:
        try:
            found = hashlib.file_digest(f, "sha256").hexdigest()
        except OSError as e:
            raise error(str(path), expected="a file to read", found=e.strerror or str(e)) from e
    if (named := blob_digest(path)) and named != found:
        expected, fix = "content with the SHA-256 in the file's name", "remove it, and download it again"
        raise error(str(path), expected=expected, found=f"one of {found[:12]}…", fix=fix)
    return found


def sha256_bytes(data: bytes) -> str:
    """Return the hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def canonical(data: Any) -> bytes:
    """Serialise JSON data to a unique byte string: sorted keys, no spaces. Raises ValueError for NaN and infinity."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_json(data: Any) -> str:
    """Return the hex digest of JSON data in its canonical form."""
    return sha256_bytes(canonical(data))
