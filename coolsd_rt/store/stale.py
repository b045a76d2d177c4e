"""Finds the reasons why an engine differs from what its spec would build today.

Compares the values in a manifest with given hashes, spec sections and versions. Knows manifests. Does not know what the
values mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from coolsd_rt.store.manifest import Manifest

Kind = Literal["file", "spec", "tool", "code", "run-time"]
_ABSENT = "nothing"


@dataclass(frozen=True)
class Reason:
    """One difference. Differences of kind `run-time` need no rebuild: a build only records the new values."""

    kind: Kind
    what: str
    before: str
    after: str

    def __str__(self) -> str:
        note = " (run-time: rebuilds nothing)" if self.kind == "run-time" else ""
        return f"{self.kind} {self.what}: {self.before} -> {self.after}{note}"

    def as_dict(self) -> dict[str, str]:
        """Return JSON data."""
        return asdict(self)


def _flat(data: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(data, Mapping):
        out: dict[str, str] = {}
        for key, value in data.items():
            out |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
        return out
    return {prefix: str(data)}


def _differences(kind: Kind, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Reason]:
    a, b = _flat(old), _flat(new)
    keys = [k for k in {**a, **b} if a.get(k) != b.get(k)]
    return [Reason(kind, k, a.get(k, _ABSENT), b.get(k, _ABSENT)) for k in keys]


def _stage_union(manifest: Manifest, part: Literal["files", "tools"]) -> dict[str, str]:
    return {key: value for stage in manifest.stages.values() for key, value in stage.inputs[part].items()}


def staleness(
    manifest: Manifest,
    *,
    files: Mapping[str, str] | None = None,
    build_view: Mapping[str, Any] | None = None,
    run_view: Mapping[str, Any] | None = None,
    tools: Mapping[str, str] | None = None,
    code: Callable[[str], str] | None = None,
    contract_version: int | None = None,
) -> list[Reason]:
    """Return the differences between a manifest and today's values. An argument that is None is not compared.

    Args:
        files: spec key (`target.weights`) to the SHA-256 of the file today.
        build_view, run_view: the two parts of the spec today.
        tools: installed versions; a tool that is not installed is not compared.
        code: returns the digest of the source code of a stage, by the stage's name.
        contract_version: version of the tensor contract.
    """
    reasons = []
    if files is not None:
        old = _stage_union(manifest, "files")
        reasons += [
            Reason("file", k, f"{old[k][:12]}…", f"{files[k][:12]}…" if k in files else _ABSENT)
            for k in old
            if files.get(k) != old[k]
        ]
    if build_view is not None:
        reasons += _differences("spec", manifest.build_view, build_view)
    if tools is not None:
        old = {**_stage_union(manifest, "tools"), **manifest.tools}
        reasons += [Reason("tool", k, old[k], tools[k]) for k in old if k in tools and tools[k] != old[k]]
    if code is not None:
        digests = {name: (stage.inputs["code"], code(name)) for name, stage in manifest.stages.items()}
        reasons += [Reason("code", f"of stage {n}", old, new) for n, (old, new) in digests.items() if old != new]
    if contract_version is not None and (found := manifest.contract.get("version")) != contract_version:
        reasons.append(Reason("code", "contract version", str(found), str(contract_version)))
    if run_view is not None:
        reasons += _differences("run-time", {k: manifest.spec.get(k) for k in run_view}, run_view)
    return reasons
