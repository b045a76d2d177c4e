"""Wheels made in a test, and pip set to find these and nothing else."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest


def write_wheel(folder: Path, files: dict[str, bytes], name: str = "toy_model", version: str = "1.2") -> Path:
    """A wheel of a package with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    texts = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, data in {**files, **{key: text.encode() for key, text in texts.items()}}.items():
            archive.writestr(inside, data)
    return path


def pip_finds(folder: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set pip as a user does, by its environment: this folder is its index. None: an index that does not answer."""
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    if folder is None:
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    else:
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
