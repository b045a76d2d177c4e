"""The content-addressed cache of build stages, and the assembly of engines from them.

    <out>/.cache/<stage>-<key>/          files of one stage, and stage.json with their hashes, written last
    <out>/<name>/<fingerprint>/          an engine: its stages' files (hard links) and manifest.json, written last
    <out>/<name>/current                 the fingerprint of the latest build, as text
    <out>/.tmp, <out>/.locks             work in progress

Every folder is made under .tmp and renamed, so a folder under .cache or <name> is never incomplete. It counts as valid
only if every hash matches. Knows folders and hashes. Does not know how a stage works: `Store.stage` receives a
function.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coolsd_rt.errors import CoolsdError
from coolsd_rt.files import is_clutter
from coolsd_rt.limits import MANIFEST_BYTES
from coolsd_rt.store.atomic import Workshop, disk_errors, publish
from coolsd_rt.store.engine import EngineFolder
from coolsd_rt.store.fingerprint import engine_fingerprint, stage_key
from coolsd_rt.store.hashing import sha256_file
from coolsd_rt.store.manifest import (
    MANIFEST,
    FileName,
    FileRecord,
    Manifest,
    StageEntry,
    StageInputs,
    StageName,
    read_manifest,
)
from coolsd_rt.store.strict import Strict, read_model

STAGE = "stage.json"
OnWait = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """A step of a build and everything that its result depends on. Every value is JSON data.

    files: spec key to SHA-256 of the input file. spec: the build-time sections that the stage reads. tools: package
    versions. code: digest of the stage's source code. after: key of every stage whose result this stage reads.
    """

    name: str
    files: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    after: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # It becomes part of a folder's name, and the lock of a temporary folder is the part before the first dot.
        if not re.fullmatch(r"[a-z0-9_]+", self.name):
            raise ValueError(f"stage name {self.name!r}: expected lower-case letters, digits and _")

    @property
    def inputs(self) -> StageInputs:
        """The inputs of the key, as JSON data."""
        return {
            "files": dict(self.files),
            "spec": dict(self.spec),
            "tools": dict(self.tools),
            "code": self.code,
            "after": dict(self.after),
        }

    @property
    def key(self) -> str:
        """Hash of the name and all inputs; see `stage_key`."""
        return stage_key(self.name, self.inputs)

    @property
    def id(self) -> str:
        """Name of the stage's folder in the cache, NAME-KEY."""
        return f"{self.name}-{self.key}"


class StageRecord(Strict):
    """The contents of stage.json, which proves that a stage's folder is complete."""

    name: StageName
    entry: StageEntry
    files: dict[FileName, FileRecord]


@dataclass(frozen=True)
class CachedStage:
    """A finished stage. `fresh` is true if this process ran it."""

    folder: Path
    record: StageRecord
    fresh: bool = False

    @property
    def files(self) -> dict[str, FileRecord]:
        """File name to size, hash and role."""
        return dict(self.record.files)

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that the stage recorded, JSON data."""
        return self.record.entry.facts

    @property
    def size(self) -> int:
        """Size of all files in bytes."""
        return sum(f.size for f in self.record.files.values())


def record_files(folder: Path, role: str) -> dict[str, FileRecord]:
    """Hash every file of a folder. Raises CoolsdError for anything that is not a plain file."""
    records = {}
    for path in sorted(p for p in folder.iterdir() if not is_clutter(p.name)):
        if path.is_symlink() or not path.is_file():
            raise CoolsdError(f"stage {role}", expected="plain files only", found=path.name)
        records[path.name] = FileRecord(sha256=sha256_file(path), size=path.stat().st_size, role=role)
    return records


def _holds(path: Path, record: FileRecord, stage: str) -> bool:
    """Whether a file matches its record. Does not read files of another size, or devices."""
    found = path.lstat()
    plain = stat.S_ISREG(found.st_mode) and found.st_size == record.size and record.role == stage
    return plain and sha256_file(path) == record.sha256


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # different file systems, or one without hard links
        shutil.copyfile(source, target)


@dataclass(frozen=True)
class EngineRecord:
    """The contents of an engine's manifest besides its files and stages. JSON data, except for the path.

    spec: the whole spec. build_view: its build-time part. tools: package versions. contract: sizes and tensors of the
    graphs. spec_file: path of the spec; None if unknown.
    """

    name: str
    spec: Mapping[str, Any]
    build_view: Mapping[str, Any]
    tools: Mapping[str, str]
    contract: Mapping[str, Any]
    spec_file: Path | None = None


class Store:
    """All builds under one output folder. Safe for concurrent use by any number of processes."""

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        self._shop = Workshop(self.out)

    def sweep(self) -> None:
        """Remove what killed builds left. Called at the start of a build."""
        with disk_errors(self.out):
            self._shop.sweep_all()

    def cached(self, stage: Stage) -> CachedStage | None:
        """Return the stage's result if it exists and every hash matches, else None."""
        folder = self.out / ".cache" / stage.id
        try:
            record = read_model(folder / STAGE, StageRecord, "a stage's record", MANIFEST_BYTES)
            names = {p.name for p in folder.iterdir() if not is_clutter(p.name)} - {STAGE}
            whole = record.name == stage.name and record.entry.key == stage.key and names == set(record.files)
            whole = whole and record.entry.inputs == stage.inputs
            whole = whole and all(_holds(folder / name, file, stage.name) for name, file in record.files.items())
        except (OSError, CoolsdError):
            return None
        return CachedStage(folder, record) if whole else None

    def stage(
        self,
        stage: Stage,
        produce: Callable[[Path], Mapping[str, Any] | None],
        *,
        need_bytes: int = 0,
        on_wait: OnWait | None = None,
    ) -> CachedStage:
        """Return the stage's result; call `produce(folder)` to make it if it does not exist.

        `produce` writes plain files to the empty folder and may return facts (JSON data) for the manifest. `need_bytes`
        estimates the required disk space. If another process is running the stage, waits and returns that result.

        Raises:
            CoolsdError: the disk is full, or the output folder is not writable. Errors of `produce` pass through.
                Nothing is left behind in either case.
        """
        with disk_errors(self.out, need_bytes):
            with self._shop.lock(stage.id, on_wait):
                if done := self.cached(stage):
                    return done
                with self._shop.folder(stage.id) as temp:
                    facts = dict(produce(temp) or {})
                    entry = StageEntry(key=stage.key, inputs=stage.inputs, facts=facts)
                    record = StageRecord(name=stage.name, entry=entry, files=record_files(temp, stage.name))
                    (temp / STAGE).write_bytes(record.model_dump_json(indent=2).encode())
                    final = self.out / ".cache" / stage.id
                    publish(temp, final)
            return CachedStage(final, record, fresh=True)

    def find(self, name: str, fingerprint: str) -> EngineFolder | None:
        """Return the engine of that fingerprint if it exists and every hash matches, else None."""
        folder = self.out / name / fingerprint
        try:
            engine = EngineFolder(folder, read_manifest(folder))
            engine.verified()
        except CoolsdError:
            return None
        return engine if engine.manifest.fingerprint == fingerprint else None

    def assemble(
        self,
        stages: Sequence[CachedStage],
        record: EngineRecord,
        *,
        internal: Collection[str] = (),
        current: bool = True,
        on_wait: OnWait | None = None,
    ) -> EngineFolder:
        """Assemble stages to an engine in `<out>/<record.name>/<fingerprint>` and point `current` to it.

        An existing valid engine is kept, with its parity receipt; only the run-time values of its spec are updated.
        internal: stages that only other stages read; they are recorded, but their files do not become part of the
        engine. current: False leaves `current` unchanged, for an engine that has to pass parity first.

        Raises:
            CoolsdError: the disk is full, the folder is not writable, or two stages have a file of the same name.
        """
        entries = {s.record.name: s.record.entry for s in stages}
        fingerprint = engine_fingerprint({n: e.key for n, e in entries.items()}, record.build_view)
        shipped = [stage for stage in stages if stage.record.name not in internal]
        files = _merge(shipped)
        final = self.out / record.name / fingerprint
        lock = f"{record.name}-{fingerprint}"
        relative = _relative(record.spec_file, self.out) if record.spec_file else ""
        manifest = Manifest(
            name=record.name,
            fingerprint=fingerprint,
            spec=dict(record.spec),
            build_view=dict(record.build_view),
            files=files,
            tools=dict(record.tools),
            stages=entries,
            contract=dict(record.contract),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            spec_file=relative,
        )
        with disk_errors(self.out), self._shop.lock(lock, on_wait):
            if (done := self.find(record.name, fingerprint)) and done.manifest.files == files:
                engine = done.with_manifest(spec=dict(record.spec), spec_file=relative)
            else:
                with self._shop.folder(lock) as temp:
                    for stage in shipped:
                        for file in stage.files:
                            _link(stage.folder / file, temp / file)
                    (temp / MANIFEST).write_bytes(manifest.text())
                    publish(temp, final)
                engine = EngineFolder(final, manifest)
                engine.verified()
            if current:
                engine.make_current()
        return engine


def _relative(path: Path, start: Path) -> str:
    """Return a path as the manifest stores it; empty if it cannot be stored (not text, or several lines)."""
    text = os.path.relpath(path, start)
    return text if text.isprintable() and not os.path.isabs(text) else ""


def _merge(stages: Sequence[CachedStage]) -> dict[str, FileRecord]:
    files: dict[str, FileRecord] = {}
    for stage in stages:
        for name, record in stage.files.items():
            if name in files:
                found = f"{name} of {files[name].role} and of {record.role}"
                raise CoolsdError("assembling the engine", expected="each file name once", found=found)
            files[name] = record
    return files
