"""The manifest of an engine: what the engine was made from, and the hash of every file.

Readable without loading a file.

Knows JSON and the manifest's schema. A manifest is untrusted data: every name in it is checked before use. It is not
signed; anyone who can rewrite the manifest and the files together can make another engine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from coolsd_rt.errors import CoolsdError
from coolsd_rt.files import read_json
from coolsd_rt.limits import MANIFEST_BYTES
from coolsd_rt.store.fingerprint import engine_fingerprint, stage_key
from coolsd_rt.store.strict import Strict, difference, pattern, validate

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_MOST_FILES = 1024

Sha256 = Annotated[str, Field(pattern=pattern(r"^[0-9a-f]{64}$", "a SHA-256, 64 hexadecimal digits"))]
Key = Annotated[str, Field(pattern=pattern(r"^[0-9a-f]{16}$", "16 hexadecimal digits"))]
# Names without separators only: a manifest cannot point outside its folder.
FileName = Annotated[
    str, Field(pattern=pattern(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", "a file name of letters, digits, . _ and -"))
]
StageName = Annotated[
    str, Field(pattern=pattern(r"^[a-z0-9_]{1,64}$", "a stage's name: lower-case letters, digits and _"))
]
Name = Annotated[
    str,
    Field(pattern=pattern(r"^[a-z0-9][a-z0-9_-]{0,63}$", "a name: lower-case letters, digits, _ and -, at most 64")),
]
# Text for people: a version, a date, a key of a spec.
Word = Annotated[str, Field(max_length=256, pattern=pattern(r"^[^\x00-\x1f\x7f-\x9f]*$", "text of one line"))]
FilePath = Annotated[
    str,
    Field(max_length=4096, pattern=pattern(r"^(?:[^/\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*)?$", "a relative path")),
]
Instant = Annotated[
    str,
    Field(
        pattern=pattern(
            r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|\+00:00)$",
            "a time in UTC such as 2026-01-31T12:00:00+00:00",
        )
    ),
]


class FileRecord(Strict):
    """One file of an engine or a stage."""

    sha256: Sha256
    size: int = Field(ge=0, le=1 << 53)
    role: StageName = Field(description="Name of the stage that made the file.")


class StageInputs(TypedDict):
    """The inputs that a stage's key is the hash of."""

    files: dict[Word, Word]
    spec: dict[Word, Any]
    tools: dict[Word, Word]
    code: Word
    after: dict[StageName, Key]


StageInputs.__pydantic_config__ = Strict.model_config  # type: ignore[attr-defined]


class StageEntry(Strict):
    """One stage of a build. `key` is the hash of `inputs`."""

    key: Key
    inputs: StageInputs
    facts: dict[Word, Any] = Field(description="Facts recorded by the stage (sizes, node counts).")


class Manifest(Strict):
    """The contents of engines/<name>/<fingerprint>/manifest.json."""

    schema_version: Literal[1] = 1
    name: Name
    fingerprint: Key
    spec: dict[Word, Any] = Field(description="The resolved spec, defaults included.")
    build_view: dict[Word, Any] = Field(description="Part of the spec that the fingerprint depends on.")
    files: dict[FileName, FileRecord] = Field(max_length=_MOST_FILES)
    tools: dict[Word, Word] = Field(description="Versions of the build tools.")
    stages: dict[StageName, StageEntry] = Field(max_length=_MOST_FILES)
    contract: dict[Word, Any] = Field(description="Sizes and tensors: how the graphs are stepped.")
    parity: dict[Word, Any] | None = Field(default=None, description="Receipt of the last parity run.")
    created: Instant = Field(description="UTC, ISO 8601.")
    spec_file: FilePath = Field(
        default="", description="Spec that the engine was built from, relative to the output folder."
    )

    def text(self) -> bytes:
        """Return the JSON text as UTF-8 bytes."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    def expected_fingerprint(self) -> str:
        """Return the fingerprint that follows from the stages' keys and the build view."""
        return engine_fingerprint({name: stage.key for name, stage in self.stages.items()}, self.build_view)


def spec_path(folder: Path, manifest: Manifest) -> Path | None:
    """Return the path of the spec that an engine was built from, if it still exists.

    folder: the engine's folder, `<out>/<name>/<fingerprint>`.
    """
    path = os.path.normpath(folder.parent.parent / manifest.spec_file)
    return Path(path) if manifest.spec_file and os.path.isfile(path) else None


def rebuild_hint(folder: Path | None = None, manifest: Manifest | None = None) -> str:
    """Return the command that rebuilds a broken engine."""
    spec = spec_path(folder, manifest) if folder and manifest else None
    engine = manifest.build_view.get("engine") if manifest else None
    engine = engine if isinstance(engine, dict) else {}
    usual = {"backend": "onnxruntime", "device": "cuda" if str(engine.get("backend")).startswith("tensorrt") else "cpu"}
    words = [(key, engine.get(key)) for key in ("backend", "device", "precision")]
    asked = "".join(f" --{key} {word}" for key, word in words if _plain(word) and word != usual.get(key))
    return f"build it again: coolsd-rt build {spec or 'SPEC.yaml'}{asked}"


def _plain(word: object) -> bool:
    """Whether a word of a manifest may appear in a command that is shown to the user."""
    return isinstance(word, str) and len(word) <= 32 and word.isascii() and word.replace("-", "").isalnum()


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest. Opens no other file.

    Raises:
        CoolsdError: the manifest is missing, unreadable, inconsistent, or of another schema version.
    """
    path, fix = folder / MANIFEST, rebuild_hint()
    expected = f"a manifest of schema version {SCHEMA_VERSION}"
    if not os.path.lexists(path):
        raise CoolsdError(str(folder), expected=f"a {MANIFEST}", found="none", fix=fix)
    data = read_json(path, expected, MANIFEST_BYTES, fix=fix, error=CoolsdError)
    manifest = validate(data, Manifest, str(path), expected=expected, fix=fix)
    _check_consistent(path, manifest)
    return manifest


def _check_consistent(path: Path, manifest: Manifest) -> None:
    """Recompute the keys in a manifest, which are hashes of other values in it, so that an edited manifest is detected.

    Also compares values that it states twice: the build's part of the spec, a file read by two stages, a file's stage.
    """
    fix = rebuild_hint(path.parent, manifest)
    seen: dict[str, str] = {}
    for name, stage in manifest.stages.items():
        if (key := stage_key(name, stage.inputs)) != stage.key:
            raise CoolsdError(f"{path}: stages.{name}", expected=f"key {key}", found=stage.key, fix=fix)
        for file, digest in stage.inputs["files"].items():
            if seen.setdefault(file, digest) != digest:
                where, expected = f"{path}: stages.{name}.inputs.files.{file}", f"{seen[file]}, as in another stage"
                raise CoolsdError(where, expected=expected, found=digest, fix=fix)
    if (fingerprint := manifest.expected_fingerprint()) != manifest.fingerprint:
        raise CoolsdError(f"{path}: fingerprint", expected=fingerprint, found=manifest.fingerprint, fix=fix)
    for name, record in manifest.files.items():
        if record.role not in manifest.stages:
            where, expected = f"{path}: files.{name}.role", f"one of {', '.join(sorted(manifest.stages))}"
            raise CoolsdError(where, expected=expected[:200], found=record.role, fix=fix)
    if odd := difference(manifest.build_view, _part(manifest.spec, manifest.build_view), ("build_view",)):
        where, expected, found = odd
        raise CoolsdError(f"{path}: {where}", expected=f"{found}, as in its spec", found=expected, fix=fix)


def _part(whole: Any, like: Any) -> Any:
    """Return the part of `whole` that has the keys of `like`; of a list, whether it has any, where `like` is true."""
    if like is True and isinstance(whole, list):
        return bool(whole)
    if not isinstance(whole, dict) or not isinstance(like, dict):
        return whole
    return {key: _part(value, like[key]) for key, value in whole.items() if key in like}
