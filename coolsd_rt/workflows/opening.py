"""Loads an engine from its folder, and the eager reference that parity compares it with.

Knows which backend and which files belong together. Does not know requests. Imports a backend only when it is used:
running an engine needs neither torch nor onnx.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coolsd_rt import backends
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.files import read_lines, why_unusable
from coolsd_rt.prompts import KEYS, Conditioner
from coolsd_rt.prompts import load_conditioner as read_conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.spec import LoadedSpec, load_spec
from coolsd_rt.spec.fields import check_fields
from coolsd_rt.store import EngineFolder, Manifest, VerifiedEngine, sha256_file
from coolsd_rt.store.manifest import rebuild_hint, spec_path
from coolsd_rt.workflows.belonging import check_conditioner, description_of, neighbours_of, spec_of

__all__ = [
    "PromptInputs",
    "built_from",
    "default_prompts",
    "description_of",
    "find_spec",
    "load_conditioner",
    "load_engine",
    "load_neighbours",
    "open_reference",
    "spec_of",
]

PROMPTS = "prompts.txt"  # file beside the spec's condition file, with captions of the training set


@dataclass(frozen=True)
class PromptInputs:
    """Precomputed features and a text encoder's folder, which replace the spec's; None keeps the spec's."""

    features: Path | None = None
    text_encoder: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)


def load_conditioner(verified: VerifiedEngine, reading: PromptInputs | None = None) -> Conditioner:
    """Load the prompt reader of an engine.

    Raises UserError, CoolsdError and MissingExtra as `prompts.load_conditioner` does, and CoolsdError if its files are
    not those that the graphs were built with.
    """
    reading = reading or PromptInputs()
    manifest, folder = verified.manifest, verified.engine.folder
    spec_file = spec_path(folder, manifest)
    try:
        conditioner = read_conditioner(
            spec_of(verified.engine).condition,
            verified.path,
            spec_folder=None if spec_file is None else spec_file.parent,
            features=reading.features,
            encoder=reading.text_encoder,
        )
    except UserError as error:
        # A broken file inside the engine is not the user's mistake: it raises CoolsdError.
        own = tuple(str(verified.path(name)) for name in manifest.files)
        if type(error) is UserError and error.what.startswith(own):
            fix = rebuild_hint(folder, manifest)
            raise CoolsdError(error.what, expected=error.expected, found=error.found, fix=fix) from error
        raise
    check_conditioner(verified, conditioner)
    return conditioner


def load_neighbours(verified: VerifiedEngine) -> NDArray[np.int64] | None:
    """Return the nearest codes of each code, int64 [V, n], or None if the engine was built without them.

    Raises CoolsdError if the file is not a table of the engine's codes.
    """
    return neighbours_of(verified)


def load_engine(verified: VerifiedEngine, threads: int | None = None, later: frozenset[str] = frozenset()) -> Engine:
    """Load the engine on its backend.

    threads: None is the usable cores. later: graphs to load when they are first used. Raises MissingExtra without the
    backend's package.
    """
    return backends.load(verified, backends.LoadOptions(threads=threads, later=later))


def find_spec(folder: EngineFolder, spec_file: Path | None = None) -> LoadedSpec:
    """Return the spec that an engine was built from, with the same weights files.

    Raises UserError if the spec has moved (`--spec` tells its path), or if a file's hash differs from the manifest's.
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
    """Return the spec keys (`target.weights`) and the SHA-256 that each file had when the engine was built."""
    return {key: digest for stage in manifest.stages.values() for key, digest in stage.inputs["files"].items()}


def open_reference(loaded: LoadedSpec, threads: int | None = None, device: Literal["cpu", "cuda"] = "cpu") -> Engine:
    """Load the eager PyTorch networks with the spec's weights, in float32. `threads` applies to the whole process.

    Raises MissingExtra without torch, UserError if the weights do not fit, CoolsdError if the device does not exist.
    """
    for package in ("torch", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "build", "the eager reference")
    from coolsd_rt.backends.torch import eager

    files = loaded.files
    named: str = loaded.spec.draft.model
    kind: Literal["eagle", "model", "rows"] = "eagle" if named == "eagle" else "rows" if named == "rows" else "model"
    target, image = files["target.weights"], files.get("image.weights")
    return eager.load(target, files.get("draft.weights"), image, threads, kind, device)


def default_prompts(loaded: LoadedSpec, conditioner: Conditioner) -> list[str]:
    """Return prompts to try an engine with: captions beside the condition's file, else the conditioner's samples."""
    names = loaded.spec.file_names()
    named = [loaded.folder / names[key] for key in KEYS if key in loaded.files]
    path = (named[0].parent if named else loaded.folder) / PROMPTS
    return conditioner.samples() if why_unusable(path) == "nothing" else read_lines(path, stdin=False)
