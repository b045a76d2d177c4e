"""The source code that each stage of a build depends on. Its digest is part of the stage's key.

A stage becomes stale only when the code that produces its result has changed: editing the exporter rebuilds graphs,
editing a checkpoint converter rebuilds nothing. A test compares these lists with the modules that the stages import.

Knows the rooms by their paths. Does not know how a stage works, and imports none of the listed code.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from coolsd_rt.store import hash_sources

PACKAGE = Path(__file__).resolve().parents[2]

COMPILE = "compile_"
"""Prefix of the names of stages that compile a graph."""

QUANTIZATION = "quantization"
"""Name of the stage that chooses the forms of int8 matrices, and of its record among its facts."""

_STAGE = ("workflows/build/stages.py",)
_NETWORKS = ("models", "checkpoints/load.py", "contract.py", "backends/description.py")
_FORMS = ("workflows/build/forms.py", "workflows/build/accuracy.py", "workflows/build/code.py")
_GRAPH = (*_STAGE, *_NETWORKS, *_FORMS, "export", "ops/logits.py", "workflows/build/smoke.py")
_COMPILER = ("workflows/build/compile.py", "export/tensorrt_graph.py", "backends/tensorrt", "contract.py")
_NEIGHBOURS = ("law/tolerance.py",)

READ_BY = {
    "condition": _GRAPH,
    "target": _GRAPH,
    "draft": _GRAPH,
    QUANTIZATION: (
        *_FORMS,
        *(f"workflows/build/{name}" for name in ("quantization.py", "product_times.py", "processor.py")),
        *(f"export/{name}.py" for name in ("blocks", "graphs", "quantize", "rowwise", "products")),
        "backends/onnxruntime",
    ),
    "image": (*_GRAPH, *_NEIGHBOURS),
    "codes": (*_STAGE, *_NETWORKS, *_NEIGHBOURS),
    "prompts": (*_STAGE, *_NETWORKS, "prompts"),
    "weights": (*_STAGE, *_NETWORKS),
    COMPILE: _COMPILER,
}
"""Stage name to the files and folders of the package whose code determines the result of the stage."""


def read_by(stage: str) -> tuple[Path, ...]:
    """Return the files and folders whose code stage `stage` depends on.

    Empty for a stage that this version does not have. All stages `compile_*` share one list.
    """
    name = COMPILE if stage.startswith(COMPILE) else stage
    return tuple(PACKAGE / part for part in READ_BY.get(name, ()))


@cache
def code_digest(stage: str) -> str:
    """Return 16 hex digits that change whenever the code of `stage` changes."""
    return hash_sources(read_by(stage))
