"""A build of two stages that writes a few bytes: all that a store knows of a build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.store import CachedStage, EngineFolder, EngineRecord, Stage, Store

VIEW = {"engine": {"precision": "fp32"}, "draft": {"length": 5}}
SPEC = {"name": "toy", **VIEW, "sampling": {"top_k": 0}}
TOOLS = {"torch": "2.13.0"}


def toy_stage(name: str, weights: str = "aa") -> Stage:
    return Stage(name, files={f"{name}.weights": weights}, spec={"model": "m"}, tools=TOOLS, code="c1")


def toy_write(stage: Stage) -> Callable[[Path], Mapping[str, Any]]:
    def produce(folder: Path) -> Mapping[str, Any]:
        (folder / f"{stage.name}.onnx").write_bytes(f"graph of {stage.name} {stage.files}".encode())
        return {"nodes": 3}

    return produce


def toy_build(out: Path, **changes: Any) -> EngineFolder:
    """What `coolsd-rt build` does with a store."""
    store = Store(out)
    store.sweep()
    stages: list[CachedStage] = []
    for name in ("target", "draft"):
        stage = toy_stage(name, changes.get(name, "aa"))
        stages.append(store.stage(stage, changes.get("produce", toy_write)(stage)))
    spec, view = changes.get("spec", SPEC), changes.get("view", VIEW)
    return store.assemble(
        stages,
        EngineRecord(
            name="toy",
            spec=spec,
            build_view=view,
            tools=TOOLS,
            contract={"vocab": 8},
            spec_file=changes.get("spec_file"),
        ),
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "engines"


def left_over(out: Path) -> list[str]:
    """Work in progress that nobody works at."""
    return [str(p) for p in (out / ".tmp").rglob("*")] if (out / ".tmp").is_dir() else []
