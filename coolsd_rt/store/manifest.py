"""The manifest of an engine: what it was made of, and the hash of every file, readable without loading any of them.

Knows JSON and its own schema. A manifest is data from a disk: every name in it is checked before use. It is not
signed; who can rewrite manifest and files together can make another engine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coolsd_rt.errors import CoolsdError
from coolsd_rt.store.fingerprint import engine_fingerprint, stage_key

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MAX_BYTES = 16 << 20

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
# Flat names only: a manifest cannot point outside its folder.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Record):
    """One file of an engine or a stage."""

    sha256: Sha256
    size: int = Field(ge=0)
    role: str = Field(description="What it is for: the stage that made it.")


class StageEntry(_Record):
    """One stage of a build: the key is the hash of the inputs."""

    key: Key
    inputs: dict[str, Any]
    facts: dict[str, Any] = Field(default_factory=dict, description="What the stage found out (sizes, node counts).")


class Manifest(_Record):
    """engines/<name>/<fingerprint>/manifest.json."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    fingerprint: Key
    spec: dict[str, Any] = Field(description="The resolved spec, defaults included.")
    build_view: dict[str, Any] = Field(description="The part of it that the fingerprint depends on.")
    files: dict[FileName, FileRecord]
    tools: dict[str, str] = Field(description="Versions of what built it.")
    stages: dict[str, StageEntry]
    contract: dict[str, Any] = Field(description="Sizes and tensors: how the graphs are stepped.")
    parity: dict[str, Any] | None = Field(default=None, description="Receipt of the last parity run.")
    created: str = Field(description="UTC, ISO 8601.")
    spec_file: str = Field(default="", description="The spec it was built from, relative to the output folder.")

    def text(self) -> bytes:
        return (self.model_dump_json(indent=2) + "\n").encode()

    def expected_fingerprint(self) -> str:
        return engine_fingerprint({name: stage.key for name, stage in self.stages.items()}, self.build_view)


def spec_path(folder: Path, manifest: Manifest) -> Path | None:
    """The spec that an engine at `<out>/<name>/<fingerprint>` was built from, if it is still where it was."""
    path = Path(os.path.normpath(folder.parent.parent / manifest.spec_file))
    return path if manifest.spec_file and path.is_file() else None


def rebuild_hint(folder: Path | None = None, manifest: Manifest | None = None) -> str:
    """What to type when an engine is broken."""
    spec = spec_path(folder, manifest) if folder and manifest else None
    engine = manifest.build_view.get("engine", {}) if manifest else {}
    usual = {"backend": "onnxruntime", "device": "cuda" if str(engine.get("backend")).startswith("tensorrt") else "cpu"}
    words = [(key, engine.get(key)) for key in ("backend", "device", "precision")]
    asked = "".join(f" --{key} {word}" for key, word in words if isinstance(word, str) and word != usual.get(key))
    return f"build it again: coolsd-rt build {spec or 'SPEC.yaml'}{asked}"


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest. Opens no other file.

    Raises:
        CoolsdError: missing, unreadable, of another schema version, or not consistent with itself.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CoolsdError(str(path), expected="a manifest", found="a file too large to be one", fix=rebuild_hint())
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CoolsdError(str(folder), expected=f"a {MANIFEST}", found="none", fix=rebuild_hint()) from None
    except OSError as e:
        raise CoolsdError(str(path), expected="to read it", found=e.strerror or str(e)) from e
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        expected = f"a manifest of schema version {SCHEMA_VERSION}"
        found = f"{where}: {first['msg']}" if where else first["msg"]
        raise CoolsdError(str(path), expected=expected, found=found, fix=rebuild_hint()) from e
    _check_consistent(path, manifest)
    return manifest


def _check_consistent(path: Path, manifest: Manifest) -> None:
    """The keys in a manifest are hashes of what stands beside them: an edited manifest shows."""
    fix = rebuild_hint(path.parent, manifest)
    for name, stage in manifest.stages.items():
        if (key := stage_key(name, stage.inputs)) != stage.key:
            raise CoolsdError(f"{path}: stages.{name}", expected=f"key {key}", found=stage.key, fix=fix)
    if (fingerprint := manifest.expected_fingerprint()) != manifest.fingerprint:
        raise CoolsdError(f"{path}: fingerprint", expected=fingerprint, found=manifest.fingerprint, fix=fix)
