"""The files of a build: manifest, fingerprint, atomic writes, checks before loading.

Does not know the contents of a file.
"""

from typing import TYPE_CHECKING

from coolsd_rt.deferred import deferred

if TYPE_CHECKING:
    from coolsd_rt.store.cache import CachedStage, EngineRecord, Stage, Store
    from coolsd_rt.store.engine import EngineFolder, VerifiedEngine, open_engine
    from coolsd_rt.store.fingerprint import engine_fingerprint, hash_sources, stage_key, tool_versions
    from coolsd_rt.store.hashing import sha256_file
    from coolsd_rt.store.manifest import FileRecord, Manifest, StageEntry
    from coolsd_rt.store.stale import Reason, staleness
    from coolsd_rt.store.weights import TensorInfo, WeightsHeader, check_safetensors

__all__ = [
    "CachedStage",
    "EngineFolder",
    "EngineRecord",
    "FileRecord",
    "Manifest",
    "Reason",
    "Stage",
    "StageEntry",
    "Store",
    "TensorInfo",
    "VerifiedEngine",
    "WeightsHeader",
    "check_safetensors",
    "engine_fingerprint",
    "hash_sources",
    "open_engine",
    "sha256_file",
    "stage_key",
    "staleness",
    "tool_versions",
]

_HOMES = {
    "cache": ("CachedStage", "EngineRecord", "Stage", "Store"),
    "engine": ("EngineFolder", "VerifiedEngine", "open_engine"),
    "fingerprint": ("engine_fingerprint", "hash_sources", "stage_key", "tool_versions"),
    "hashing": ("sha256_file",),
    "manifest": ("FileRecord", "Manifest", "StageEntry"),
    "stale": ("Reason", "staleness"),
    "weights": ("TensorInfo", "WeightsHeader", "check_safetensors"),
}
"""A build needs all of it, an engine that runs a part."""

if not TYPE_CHECKING:  # hidden from type checkers, which would take any name for one of the package's
    __getattr__ = deferred(__name__, _HOMES)
