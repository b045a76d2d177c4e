"""Finds an engine's folder by name, and gives access to each of its files only after its hash was checked.

Knows manifests and hashes. Does not know graphs. Only `VerifiedEngine` returns paths of an engine's files, so that no
unverified byte is parsed: an engine file can contain native code. In a Hugging Face snapshot, where every file is a
link, each link is resolved once, and the resolved file is hashed and returned.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.files import LINK_FIX, bad_name, hub_blob, is_clutter, read_bytes, why_unusable
from coolsd_rt.shown import shorten
from coolsd_rt.store.atomic import disk_errors, write_atomic
from coolsd_rt.store.hashing import sha256_bytes, sha256_file
from coolsd_rt.store.manifest import MANIFEST, Manifest, read_manifest, rebuild_hint

CURRENT = "current"
_LOCK = ".lock"


def _own(name: str) -> bool:
    """Whether a file in an engine's folder belongs to this module: the manifest, its lock, its temporary file."""
    return name in (MANIFEST, _LOCK) or re.fullmatch(r"\.manifest\.json\.[0-9a-f]{8}\.tmp", name) is not None


@dataclass(frozen=True)
class EngineFolder:
    """An engine that was found. Only its manifest has been read."""

    folder: Path
    manifest: Manifest

    def verified(self, later: Collection[str] = ()) -> VerifiedEngine:
        """Hash every file.

        later: files that are hashed when they are read, or by `VerifiedEngine.check`. What a backend reads whole would
        otherwise be hashed twice.

        Raises:
            CoolsdError: a file is missing, has changed, or does not belong there.
        """
        fix = rebuild_hint(self.folder, self.manifest)
        try:
            there = {name for name in os.listdir(self.folder) if not _own(name) and not is_clutter(name)}
        except OSError as e:
            found = e.strerror or str(e)
            raise CoolsdError(str(self.folder), expected="a folder to read", found=found, fix=fix) from e
        if missing := sorted(set(self.manifest.files) - there):
            raise CoolsdError(str(self.folder), expected=f"the file {missing[0]}", found="none", fix=fix)
        if extra := sorted(there - set(self.manifest.files)):
            found = f"the additional file {extra[0]}"
            raise CoolsdError(str(self.folder), expected="the manifest's files only", found=found, fix="remove it")
        paths = {name: self._plain(name, fix) for name in self.manifest.files}
        for name, record in self.manifest.files.items():
            if (size := paths[name].stat().st_size) != record.size:
                what = f"{self.folder / name} was changed"
                raise CoolsdError(what, expected=f"{record.size} bytes", found=str(size), fix=fix)
        engine = VerifiedEngine(self, paths, set(self.manifest.files))
        engine.check(name for name in self.manifest.files if name not in later)
        return engine

    def _plain(self, name: str, fix: str) -> Path:
        """Resolve a link of the hub's cache. Raises CoolsdError for any other link, or if the file is not plain."""
        path = self.folder / name
        if path.is_symlink():
            if (blob := hub_blob(path)) is None:
                raise CoolsdError(str(path), expected="a plain file", found="a link to another location", fix=LINK_FIX)
            return blob
        if found := why_unusable(path):
            raise CoolsdError(str(path), expected="a plain file", found=found, fix=fix)
        return path

    def with_manifest(self, **changes: Any) -> EngineFolder:
        """Replace fields of the manifest on disk, atomically and under a lock; other files stay unchanged.

        Raises:
            CoolsdError: the folder is not writable.
        """
        from filelock import FileLock  # not needed to read an engine

        with disk_errors(self.folder), FileLock(self.folder / _LOCK):
            old = read_manifest(self.folder)
            new = Manifest.model_validate({**old.model_dump(), **changes})
            if new != old:
                write_atomic(self.folder / MANIFEST, new.text())
        return EngineFolder(self.folder, new)

    def make_current(self) -> None:
        """Point the name of the pipeline (`engines/NAME`) to this build.

        Raises CoolsdError if the folder is not writable.
        """
        with disk_errors(self.folder):
            write_atomic(self.folder.parent / CURRENT, f"{self.manifest.fingerprint}\n".encode())

    def with_receipt(self, receipt: dict[str, Any]) -> EngineFolder:
        """Write a parity receipt (JSON data) to the manifest."""
        return self.with_manifest(parity=receipt)


def _tampered(path: Path, expected: str, found: str, fix: str) -> CoolsdError:
    return CoolsdError(f"{path} was changed", expected=f"SHA-256 {expected[:12]}…", found=f"{found[:12]}…", fix=fix)


@dataclass(frozen=True)
class VerifiedEngine:
    """The files of an engine: none is returned before its hash was checked. Only `EngineFolder.verified` creates one.

    paths: file name in the manifest to the file that is hashed. Links are not followed a second time.
    unchecked: files whose hash was not checked yet.
    """

    engine: EngineFolder
    paths: Mapping[str, Path] = field(repr=False)
    unchecked: set[str] = field(repr=False)

    @property
    def manifest(self) -> Manifest:
        """The engine's manifest."""
        return self.engine.manifest

    def path(self, name: str) -> Path:
        """Return the path of a verified file. Raises CoolsdError if the manifest has no such file."""
        self._known(name)
        self.check([name])
        return self.paths[name]

    def _known(self, name: str) -> None:
        if name not in self.manifest.files:
            expected = f"one of {', '.join(sorted(self.manifest.files))}"
            raise CoolsdError(str(self.engine.folder), expected=expected[:200], found=name)

    def check(self, names: Iterable[str] | None = None) -> None:
        """Hash those of some files (None: of all) that were not hashed yet. Raises CoolsdError if one was changed."""
        for name in self.paths if names is None else names:
            if name in self.unchecked:
                self._compare(name, sha256_file(self.paths[name], CoolsdError))

    def _compare(self, name: str, found: str) -> None:
        """Raise CoolsdError unless a file's digest is that of the manifest."""
        folder, record = self.engine.folder, self.manifest.files[name]
        if found != record.sha256:
            raise _tampered(folder / name, record.sha256, found, rebuild_hint(folder, self.manifest))
        self.unchecked.discard(name)

    def read(self, name: str) -> bytes:
        """Return the contents of a file, after hashing exactly the returned bytes."""
        self._known(name)
        fix = rebuild_hint(self.engine.folder, self.manifest)
        limit = self.manifest.files[name].size
        data = read_bytes(self.paths[name], f"the engine's {name}", limit, fix=fix, error=CoolsdError)
        self._compare(name, sha256_bytes(data))
        return data


def _no_engine(path: Path) -> UserError:
    expected = "an engine (engines/NAME, or one fingerprint's folder)"
    if wrong := bad_name(path):  # the operating system refuses such a path
        return UserError(shorten(str(path)), expected=expected, found=wrong)
    demo = Path("pipelines/emoji.yaml")  # in a checkout
    fix = f"build one: coolsd-rt build {demo if demo.is_file() else 'SPEC.yaml'}"
    if path.suffix in (".yaml", ".yml"):
        fix = f"this file is a spec; build it: coolsd-rt build {path}"
    folder = path if path.is_dir() else path.parent
    if folder.is_dir() and (names := sorted(str(p.parent) for p in folder.glob(f"*/{CURRENT}"))):
        fix = f"there is: {', '.join(names[:5])}"
    found = {"": "a file", "a folder": "a folder without an engine"}.get(why := why_unusable(path), why)
    return UserError(str(path), expected=expected, found=found, fix=fix)


def open_engine(path: str | Path) -> EngineFolder:
    """Find an engine by `engines/NAME` (its current build) or by the folder of one fingerprint.

    Reads only the manifest.

    Raises:
        UserError: there is no engine.
        CoolsdError: the engine is broken.
    """
    path = Path(path)
    if why_unusable(path) != "a folder":  # includes names that are no valid path
        raise _no_engine(path)
    if (path / MANIFEST).is_file():
        return EngineFolder(path, read_manifest(path))
    current = path / CURRENT
    if why_unusable(current) == "nothing":
        raise _no_engine(path)
    data = read_bytes(current, "a file with a fingerprint", 64, fix=rebuild_hint())
    word = data.decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9a-f]{16}", word):
        raise CoolsdError(str(path / CURRENT), expected="a fingerprint", found=repr(word), fix=rebuild_hint())
    if not (path / word / MANIFEST).is_file():
        raise CoolsdError(str(path), expected=f"its current build {word}", found="none", fix=rebuild_hint())
    manifest = read_manifest(path / word)
    if manifest.fingerprint != word:
        found = f"one of {manifest.fingerprint}"
        raise CoolsdError(str(path / word), expected="its own manifest", found=found, fix=rebuild_hint())
    return EngineFolder(path / word, manifest)
