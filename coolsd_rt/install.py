"""The line that installs an extra, as it works for this installation: the package is on no index.

Knows where the code lies and what pip wrote down when it installed it (`direct_url.json`). Does not know what an extra
brings.
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
    """`pip install ...` with what coolsd-rt came from: its checkout, its wheel, or its address.

    Where neither the code nor pip knows, the line has PATH in it and says what to put there.
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
    except OSError:  # the working folder may be gone
        return False


@cache
def origin() -> tuple[str | None, bool]:
    """Path or address that coolsd-rt was installed from, None if nobody knows; and whether it is editable.

    The folder of the code that runs comes first, if it is a checkout: another one may be what pip knows.
    """
    checkout = Path(__file__).resolve().parents[1]
    if _is_checkout(checkout):
        return str(checkout), True
    try:
        from importlib import metadata

        data = json.loads(metadata.distribution(NAME).read_text("direct_url.json") or "")
        return _from_pip(data)
    except (ImportError, ValueError, KeyError, TypeError, AttributeError, OSError):  # by another tool, or not at all
        return None, False


def _is_checkout(folder: Path) -> bool:
    try:
        return f'name = "{NAME}"' in (folder / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def _from_pip(data: dict[str, object]) -> tuple[str | None, bool]:
    """What PEP 610 says: an address, and of what kind it is."""
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
