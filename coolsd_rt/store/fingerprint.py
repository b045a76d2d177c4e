"""Computes the keys of stages and the fingerprints of engines from everything that a build depends on.

Knows hashes of files, spec sections and tool versions. Does not know how any stage works.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from coolsd_rt.store.hashing import sha256_file, sha256_json

KEY_LENGTH = 16


def stage_key(name: str, inputs: Mapping[str, Any]) -> str:
    """Return 16 hex digits that change with the stage's name or any of its inputs (JSON data)."""
    return sha256_json({"stage": name, "inputs": inputs})[:KEY_LENGTH]


def engine_fingerprint(stage_keys: Mapping[str, str], build_view: Mapping[str, Any]) -> str:
    """Return the 16 hex digits of an engine, a hash of its stages' keys and the build-time part of its spec."""
    return sha256_json({"stages": dict(stage_keys), "build": build_view})[:KEY_LENGTH]


def hash_sources(paths: Iterable[Path]) -> str:
    """Return one digest of the .py files at or under `paths`: the code version of a stage.

    File names count, folders do not.
    """
    files = [f for p in paths for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
    return sha256_json(sorted((f.name, sha256_file(f)) for f in files))[:KEY_LENGTH]


def tool_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return installed versions by distribution name, without importing anything.

    Packages that are not installed are left out.
    """
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
