"""From an engine's folder to something that steps, and to the eager reference beside it.

Knows which backend and which files belong together. Does not know requests. Backends are imported when they are used:
running an engine needs neither torch nor onnx.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from coolsd_rt import backends
from coolsd_rt.backends.description import NEIGHBOURS_FILE
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.models.conditions import KEYS, Conditioner
from coolsd_rt.models.conditions import load_conditioner as read_conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.spec import LoadedSpec, Spec, load_spec
from coolsd_rt.spec.fields import check_fields
from coolsd_rt.spec.load import dotted
from coolsd_rt.spec.messages import problems_of
from coolsd_rt.store import EngineFolder, Manifest, VerifiedEngine, sha256_file
from coolsd_rt.store.manifest import rebuild_hint, spec_path

PROMPTS = "prompts.txt"  # beside a spec's condition file: captions that the target was trained on


@dataclass(frozen=True)
class Reading:
    """A file of precomputed features and a text encoder's folder, in the place of the spec's; None leaves those."""

    features: Path | None = None
    text_encoder: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)


def load_conditioner(verified: VerifiedEngine, reading: Reading | None = None) -> Conditioner:
    """How an engine reads prompts.

    Raises UserError, CoolsdError, MissingExtra: as `models.conditions.load_conditioner`.
    """
    reading = reading or Reading()
    manifest, folder = verified.manifest, verified.engine.folder
    spec_file = spec_path(folder, manifest)
    return read_conditioner(
        spec_of(verified.engine).condition,
        verified.path,
        spec_folder=None if spec_file is None else spec_file.parent,
        features=reading.features,
        encoder=reading.text_encoder,
    )


def load_forced(manifest: Manifest) -> tuple[int, ...] | None:
    """The ids that an engine's image tokens must have, -1 where free; None if all are free.

    Raises CoolsdError: the manifest's list is not one id a token.
    """
    ids = manifest.contract.get("forced")
    if not ids:
        return None
    dims = manifest.contract["dims"]
    whole = isinstance(ids, list) and len(ids) == dims["tokens"]
    if not whole or not all(type(i) is int and -1 <= i < dims["vocab"] for i in ids):
        expected = f"{dims['tokens']} ids from -1 (free) to {dims['vocab'] - 1}"
        fix = "build the engine again"
        raise CoolsdError("the manifest's forced tokens", expected=expected, found=str(ids)[:60], fix=fix)
    return tuple(ids)


def spec_of(folder: EngineFolder) -> Spec:
    """The spec in an engine's manifest. Raises CoolsdError if it is not one of today's."""
    try:
        return Spec.model_validate(folder.manifest.spec)
    except ValidationError as error:
        first, fix = problems_of(error, folder.manifest.spec)[0], rebuild_hint(folder.folder, folder.manifest)
        what = f"{folder.folder}: the manifest's spec: {dotted(first.path)}"
        raise CoolsdError(what, expected=first.expected, found=first.found, fix=fix) from error


def load_neighbours(verified: VerifiedEngine) -> NDArray[np.int64] | None:
    """The nearest codes of each code, int64 [V, k]; None in an engine that was built without them.

    Raises CoolsdError: the file is not a table of codes.
    """
    if NEIGHBOURS_FILE not in verified.manifest.files:
        return None
    try:
        near = np.load(io.BytesIO(verified.read(NEIGHBOURS_FILE)), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        expected = "a table of codes"
        raise CoolsdError(str(verified.path(NEIGHBOURS_FILE)), expected=expected, found=str(error)) from error
    return np.asarray(near, np.int64)


def load_engine(verified: VerifiedEngine, threads: int | None = None) -> Engine:
    """The engine on its backend. threads: None is the usable cores. Raises MissingExtra without the backend."""
    return backends.load(verified, backends.Options(threads=threads))


def find_spec(folder: EngineFolder, spec_file: Path | None = None) -> LoadedSpec:
    """The spec that an engine was built from, with the very weights it was built from.

    Raises UserError: the spec has moved (say where with `--spec`), or a file's hash is not the manifest's.
    """
    path = spec_file or spec_path(folder.folder, folder.manifest)
    if path is None:
        found = f"none at {folder.manifest.spec_file}" if folder.manifest.spec_file else "no record of where"
        raise UserError(
            "the weights the engine was built from", expected="the spec's file", found=found, fix="give --spec FILE"
        )
    loaded = load_spec(path)
    for key, built in built_from(folder.manifest).items():
        if key in loaded.files and (found := sha256_file(loaded.files[key])) != built:
            raise UserError(
                f"{loaded.files[key]} ({key})",
                expected=f"the file the engine was built from, SHA-256 {built[:12]}…",
                found=f"{found[:12]}…",
                fix=f"build the engine again: coolsd-rt build {path}",
            )
    return loaded


def built_from(manifest: Manifest) -> Mapping[str, str]:
    """Spec keys (`target.weights`) and the SHA-256 of the file each named when the engine was built."""
    return {k: str(v) for stage in manifest.stages.values() for k, v in dict(stage.inputs.get("files") or {}).items()}


def open_reference(loaded: LoadedSpec, threads: int | None = None, device: Literal["cpu", "cuda"] = "cpu") -> Engine:
    """The eager PyTorch networks with the spec's weights, in float32. `threads` is set for the whole process.

    Raises MissingExtra without torch, UserError when the weights do not fit, CoolsdError without such a device.
    """
    for package in ("torch", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "build", "the eager reference")
    from coolsd_rt.backends import torch_eager

    files = loaded.files
    kind: Literal["eagle", "model"] = "eagle" if loaded.spec.draft.model == "eagle" else "model"
    target, image = files["target.weights"], files["image.weights"]
    return torch_eager.load(target, files.get("draft.weights"), image, threads, kind, device)


def default_prompts(loaded: LoadedSpec, conditioner: Conditioner) -> list[str]:
    """Prompts to try an engine on: the captions beside its condition's file (its vocabulary), else the conditioner's
    own (single words of it)."""
    named = [loaded.files[key] for key in KEYS if key in loaded.files]
    path = (named[0].parent if named else loaded.folder) / PROMPTS
    if path.is_file():
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        if any(lines):
            return [line for line in lines if line]
    return conditioner.samples()
