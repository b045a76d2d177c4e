"""Returns the pip command that installs an extra for this installation, since the package is on no index.

Knows the location of the code and pip's record of the installation (`direct_url.json`). Does not know what an extra
contains.
"""

from __future__ import annotations

import json
import os
import shlex
from functools import cache
from pathlib import Path

NAME = "coolsd-rt"
_PLACE = "PATH"


def install_line(extra: str = "") -> str:
    """Return `pip install ...` with the origin of this installation: its checkout, its wheel, or its URL.

    If the origin is unknown, the command contains PATH and says what to replace it with.
    """
    source, editable = origin()
    extras = f"[{extra}]" if extra else ""
    if source is None:
        return f"pip install '{_PLACE}{extras}', where {_PLACE} is the checkout or the wheel of coolsd-rt"
    if "://" in source:
        return f"pip install {shlex.quote(f'{NAME}{extras} @ {source}')}"
    path = "." if _same(source, os.curdir) else source
    words = ["-e"] if editable else []
    return " ".join(("pip install", *words, f"'{path}{extras}'" if _plain(path) else shlex.quote(path + extras)))


def _plain(path: str) -> bool:
    return "'" not in path


def _same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # the working folder may not exist
        return False


@cache
def origin() -> tuple[str | None, bool]:
    """Return the path or URL that coolsd-rt was installed from, None if unknown, and whether it is editable.

    If the running code is in a checkout, that folder takes precedence: pip may know another one.
    """
    checkout = Path(__file__).resolve().parents[1]
    if _is_checkout(checkout):
        return str(checkout), True
    try:
        from importlib import metadata

        data = json.loads(metadata.distribution(NAME).read_text("direct_url.json") or "")
        return _from_pip(data)
    except (ImportError, ValueError, KeyError, TypeError, AttributeError, OSError):  # no record, or another tool's
        return None, False


def _is_checkout(folder: Path) -> bool:
    try:
        return f'name = "{NAME}"' in (folder / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def _from_pip(data: dict[str, object]) -> tuple[str | None, bool]:
    """Return what PEP 610's record says: a URL and its kind."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname  # slow to import

    url, about = data["url"], data.get("dir_info")
    if not isinstance(url, str):
        raise TypeError(url)
    editable = isinstance(about, dict) and about.get("editable") is True
    parts = urlsplit(url)
    if parts.scheme == "file":
        path = url2pathname(parts.path)
        return (path if os.path.exists(path) else None), editable
    vcs = data.get("vcs_info")
    if isinstance(vcs, dict):
        return f"{vcs['vcs']}+{url}@{vcs['commit_id']}", False
    return url, False
