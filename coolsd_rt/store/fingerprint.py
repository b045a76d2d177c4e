"""What a build depends on, as one short word.

Knows hashes of files, spec sections, tool versions. Does not know what any stage does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from coolsd_rt.store.hashing import sha256_file, sha256_json

KEY_LENGTH = 16


def stage_key(name: str, inputs: Mapping[str, Any]) -> str:
    """16 hex digits that change with the stage's name or any of its inputs (JSON data)."""
    return sha256_json({"stage": name, "inputs": inputs})[:KEY_LENGTH]


def engine_fingerprint(stage_keys: Mapping[str, str], build_view: Mapping[str, Any]) -> str:
    """16 hex digits of an engine: its stages' keys and the build-time part of its spec."""
    return sha256_json({"stages": dict(stage_keys), "build": build_view})[:KEY_LENGTH]


def hash_sources(paths: Iterable[Path]) -> str:
    """One digest of the .py files at or under `paths`: a stage's code version. File names count, places do not."""
    files = [f for p in paths for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
    return sha256_json(sorted((f.name, sha256_file(f)) for f in files))[:KEY_LENGTH]


def tool_versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions by distribution name, without importing anything. An absent package is absent here too."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
