"""An engine's folder on a disk, found by name, and its files behind a check of every hash.

Knows manifests and hashes. Does not know graphs. Paths of an engine's files are handed out by `VerifiedEngine` alone,
so that nobody parses a byte that was not checked: an engine file can be native code.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.store.atomic import disk_errors, write_atomic
from coolsd_rt.store.hashing import sha256_bytes, sha256_file
from coolsd_rt.store.manifest import MANIFEST, Manifest, read_manifest, rebuild_hint

CURRENT = "current"
_LOCK = ".lock"


def _own(name: str) -> bool:
    """Files of this module's own in an engine's folder: the manifest, its lock, its temporary."""
    return name in (MANIFEST, _LOCK) or re.fullmatch(r"\.manifest\.json\.[0-9a-f]{8}\.tmp", name) is not None


@dataclass(frozen=True)
class EngineFolder:
    """An engine that was found. Nothing of it but the manifest has been read."""

    folder: Path
    manifest: Manifest

    def verified(self) -> VerifiedEngine:
        """Hash every file.

        Raises:
            CoolsdError: a file is missing, was changed, or does not belong there.
        """
        fix = rebuild_hint(self.folder, self.manifest)
        there = {e.name: e for e in os.scandir(self.folder) if not _own(e.name)}
        if missing := sorted(set(self.manifest.files) - set(there)):
            raise CoolsdError(str(self.folder), expected=f"the file {missing[0]}", found="none", fix=fix)
        if extra := sorted(set(there) - set(self.manifest.files)):
            found = f"{extra[0]} as well"
            raise CoolsdError(str(self.folder), expected="the manifest's files only", found=found, fix="remove it")
        for name, record in self.manifest.files.items():
            path = self.folder / name
            if there[name].is_symlink() or not there[name].is_file():
                raise CoolsdError(str(path), expected="a plain file", found="something else", fix=fix)
            if (size := path.stat().st_size) != record.size:
                expected = f"{record.size} bytes"
                raise CoolsdError(f"{path} was changed", expected=expected, found=f"{size}", fix=fix)
            if (found_hash := sha256_file(path)) != record.sha256:
                raise _tampered(path, record.sha256, found_hash, fix)
        return VerifiedEngine(self)

    def with_manifest(self, **changes: Any) -> EngineFolder:
        """Replace fields of the manifest on the disk, atomically and under a lock; files are not touched.

        Raises:
            CoolsdError: the folder cannot be written.
        """
        with disk_errors(self.folder), FileLock(self.folder / _LOCK):
            old = read_manifest(self.folder)
            new = Manifest.model_validate({**old.model_dump(), **changes})
            if new != old:
                write_atomic(self.folder / MANIFEST, new.text())
        return EngineFolder(self.folder, new)

    def make_current(self) -> None:
        """Let the folder's name (`engines/NAME`) mean this build. Raises CoolsdError if it cannot be written."""
        with disk_errors(self.folder):
            write_atomic(self.folder.parent / CURRENT, f"{self.manifest.fingerprint}\n".encode())

    def with_receipt(self, receipt: dict[str, Any]) -> EngineFolder:
        """Write a parity receipt (JSON data) into the manifest."""
        return self.with_manifest(parity=receipt)


def _tampered(path: Path, expected: str, found: str, fix: str) -> CoolsdError:
    return CoolsdError(f"{path} was changed", expected=f"SHA-256 {expected[:12]}…", found=f"{found[:12]}…", fix=fix)


@dataclass(frozen=True)
class VerifiedEngine:
    """Files whose hashes held when this was made. Only `EngineFolder.verified` makes one."""

    engine: EngineFolder

    @property
    def manifest(self) -> Manifest:
        return self.engine.manifest

    def path(self, name: str) -> Path:
        """Path of a checked file. Raises CoolsdError if the manifest has no such file."""
        if name not in self.manifest.files:
            expected = f"one of {', '.join(sorted(self.manifest.files))}"
            raise CoolsdError(str(self.engine.folder), expected=expected, found=name)
        return self.engine.folder / name

    def read(self, name: str) -> bytes:
        """Contents of a file; the very bytes that are returned are the ones that were hashed."""
        path, record = self.path(name), self.manifest.files[name]
        data = path.read_bytes()
        if (found := sha256_bytes(data)) != record.sha256:
            raise _tampered(path, record.sha256, found, rebuild_hint(self.engine.folder, self.manifest))
        return data


def _no_engine(path: Path) -> UserError:
    fix = "build one: coolsd-rt build pipelines/emoji.yaml"
    if path.suffix in (".yaml", ".yml"):
        fix = f"that is a spec: build it with: coolsd-rt build {path}"
    folder = path if path.is_dir() else path.parent
    if folder.is_dir() and (names := sorted(str(p.parent) for p in folder.glob(f"*/{CURRENT}"))):
        fix = f"there is: {', '.join(names[:5])}"
    found = "nothing" if not path.exists() else "a file" if path.is_file() else "a folder without one"
    return UserError(str(path), expected="an engine (engines/NAME, or one fingerprint's folder)", found=found, fix=fix)


def open_engine(path: str | Path) -> EngineFolder:
    """Find an engine: `engines/emoji` (its current build) or one fingerprint's folder. Reads the manifest only.

    Raises:
        UserError: there is no engine.
        CoolsdError: there was one, and it is broken.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        return EngineFolder(path, read_manifest(path))
    try:
        with (path / CURRENT).open("rb") as f:
            word = f.read(64).decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        raise _no_engine(path) from None
    except OSError as e:
        raise CoolsdError(str(path / CURRENT), expected="to read it", found=e.strerror or str(e)) from e
    if not re.fullmatch(r"[0-9a-f]{16}", word):
        raise CoolsdError(str(path / CURRENT), expected="a fingerprint", found=repr(word), fix=rebuild_hint())
    if not (path / word / MANIFEST).is_file():
        raise CoolsdError(str(path), expected=f"its current build {word}", found="none", fix=rebuild_hint())
    manifest = read_manifest(path / word)
    if manifest.fingerprint != word:
        found = f"one of {manifest.fingerprint}"
        raise CoolsdError(str(path / word), expected="its own manifest", found=found, fix=rebuild_hint())
    return EngineFolder(path / word, manifest)
