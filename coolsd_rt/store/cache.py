"""The content-addressed stages of builds, and how they become an engine's folder.

    <out>/.cache/<stage>-<key>/          files of one stage, and stage.json with their hashes, written last
    <out>/<name>/<fingerprint>/          an engine: its stages' files (hard links) and manifest.json, written last
    <out>/<name>/current                 the fingerprint of the latest build, as text
    <out>/.tmp, <out>/.locks             work in progress

Every folder is made under .tmp and renamed, so a name under .cache or <name> never holds half of anything; and it
counts as whole only if every hash holds. Knows nothing of what a stage does: that is a function given to `stage`.
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
    """A step of a build and all that its result depends on. Every value is JSON data.

    `files`: spec key to SHA-256 of the input file. `spec`: the build-time sections it reads. `tools`: versions.
    `code`: digest of the code that does it. `after`: key of every stage whose result it reads.
    """

    name: str
    files: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    after: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A folder's name is made of it, and a temporary folder's lock is found by cutting at the first dot.
        if not re.fullmatch(r"[a-z0-9_]+", self.name):
            raise ValueError(f"stage name {self.name!r}: expected lower-case letters, digits and _")

    @property
    def inputs(self) -> StageInputs:
        return {
            "files": dict(self.files),
            "spec": dict(self.spec),
            "tools": dict(self.tools),
            "code": self.code,
            "after": dict(self.after),
        }

    @property
    def key(self) -> str:
        return stage_key(self.name, self.inputs)

    @property
    def id(self) -> str:
        return f"{self.name}-{self.key}"


class StageRecord(Strict):
    """stage.json: the proof that a stage's folder is whole."""

    name: StageName
    entry: StageEntry
    files: dict[FileName, FileRecord]


@dataclass(frozen=True)
class CachedStage:
    """A stage that is done. `fresh` says that this process ran it."""

    folder: Path
    record: StageRecord
    fresh: bool = False

    @property
    def files(self) -> dict[str, FileRecord]:
        return dict(self.record.files)

    @property
    def facts(self) -> dict[str, Any]:
        return self.record.entry.facts

    @property
    def size(self) -> int:
        return sum(f.size for f in self.record.files.values())


def record_files(folder: Path, role: str) -> dict[str, FileRecord]:
    """Hash every file of a folder. Raises CoolsdError on anything that is not a plain file."""
    records = {}
    for path in sorted(p for p in folder.iterdir() if not is_clutter(p.name)):
        if path.is_symlink() or not path.is_file():
            raise CoolsdError(f"stage {role}", expected="plain files only", found=path.name)
        records[path.name] = FileRecord(sha256=sha256_file(path), size=path.stat().st_size, role=role)
    return records


def _holds(path: Path, record: FileRecord, stage: str) -> bool:
    """Whether a file of a stage is what its record says. Reads no file of another size, and no device."""
    found = path.lstat()
    plain = stat.S_ISREG(found.st_mode) and found.st_size == record.size and record.role == stage
    return plain and sha256_file(path) == record.sha256


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


@dataclass(frozen=True)
class EngineRecord:
    """What an engine's manifest says beside its files and stages. JSON data, but for the path.

    spec: the whole spec. build_view: its build-time part. tools: versions. contract: of the graphs. spec_file: where
    the spec is; None leaves it unknown.
    """

    name: str
    spec: Mapping[str, Any]
    build_view: Mapping[str, Any]
    tools: Mapping[str, str]
    contract: Mapping[str, Any]
    spec_file: Path | None = None


class Store:
    """Builds under one output folder. Safe for any number of processes at once."""

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        self._shop = Workshop(self.out)

    def sweep(self) -> None:
        """Remove what killed builds left behind. Called at the start of a build."""
        with disk_errors(self.out):
            self._shop.sweep_all()

    def cached(self, stage: Stage) -> CachedStage | None:
        """The stage's result if it is there and whole. A broken one counts as absent."""
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
        """The stage's result, made by `produce(folder)` unless it is there.

        `produce` writes plain files into the empty folder and may return facts (JSON data) for the manifest.
        `need_bytes` is a guess of the space it takes. If another process is at it, waits and takes its result.

        Raises:
            CoolsdError: no space, or the output folder cannot be written. Whatever `produce` raises passes through;
                nothing is left behind in either case.
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
        """A whole engine of that fingerprint (every hash checked), or None."""
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
        """Put stages together as `<out>/<record.name>/<fingerprint>` and point `current` at it.

        An engine that is there and whole is kept, with its parity receipt; only its spec's run-time values follow.
        internal: stages that only others read; they are on record, their files are not part of the engine. current:
        False leaves it where it points, for an engine that has to be proven first.

        Raises:
            CoolsdError: no space, a folder that cannot be written, two stages with a file of one name.
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
    """A path as a manifest can hold it; empty where it cannot: a name that is no text, or of more than one line."""
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
