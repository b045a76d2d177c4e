"""A stage's key covers the code that it reads, and no other: editing a converter leaves engines current."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from coolsd_rt.store import hash_sources
from coolsd_rt.workflows.build import code
from coolsd_rt.workflows.build.code import PACKAGE, READ_BY, code_digest, read_by

ELSEWHERE = {
    "arrays.py",
    "errors.py",
    "cores.py",
    "files.py",
    "deferred.py",
    "limits.py",
    "ranges.py",
    "shown.py",
    "install.py",
    "__init__.py",
    "telemetry.py",
    "renamed.py",
}
"""Modules of types, of what is wrong, of how many threads run and of when names are imported: they decide no byte."""

OTHER_ROOMS = {
    "prompts",
    "pretrained",
    "spec",
    "store",
    "captured.py",
    "runtime",
    "backends/onnxruntime",
    "backends/registry.py",
    "law",
}
"""Rooms that stages read for names, checks and the smoke run: `smoke` compares numbers, and writes none."""


def modules_of(path: Path) -> set[Path]:
    """The modules of the package that a file imports, at any depth of it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("coolsd_rt"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("coolsd_rt")]
        for name in names:
            place = PACKAGE.parent.joinpath(*name.split("."))
            found |= {p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()}
    return found


def closure(start: Path) -> set[Path]:
    """What a file imports, and what that imports."""
    seen: set[Path] = set()
    todo = {start}
    while todo:
        path = todo.pop()
        if path == PACKAGE / "__init__.py":  # names of the front door, for type checkers
            continue
        seen.add(path)
        todo |= modules_of(path) - seen
    return seen


def covered(path: Path, places: tuple[Path, ...]) -> bool:
    return any(path == place or path.is_relative_to(place) for place in places)


@pytest.mark.parametrize("stage", ["condition", "target", "draft", "image"])
def test_all_that_a_graph_is_made_by_is_in_its_key(stage: str) -> None:
    aside = tuple(PACKAGE / part for part in ELSEWHERE | OTHER_ROOMS)
    missing = [
        path.relative_to(PACKAGE)
        for path in closure(PACKAGE / "workflows/build/stages.py")
        if not covered(path, read_by(stage)) and not covered(path, aside) and path.name != "__init__.py"
    ]
    assert missing == []


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package whose code the digests are made of."""
    copy = tmp_path / "coolsd_rt"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", copy)
    return copy


def digests() -> dict[str, str]:
    return {stage: hash_sources(read_by(stage)) for stage in READ_BY}


def edit(path: Path) -> None:
    assert path.is_file()
    path.write_text(path.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")


GRAPHS = {"condition", "target", "draft", "image"}


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("checkpoints/formats/llama.py", set()),
        ("checkpoints/convert.py", set()),
        ("pretrained/clip.py", set()),
        ("runtime/round.py", set()),
        ("cli/build.py", set()),
        ("export/graphs.py", GRAPHS | {"quantization"}),
        ("export/blocks.py", GRAPHS | {"quantization"}),
        ("export/rowwise.py", GRAPHS | {"quantization"}),
        ("export/torch_onnx.py", GRAPHS),
        ("workflows/build/accuracy.py", GRAPHS | {"quantization"}),
        ("workflows/build/product_times.py", {"quantization"}),
        ("workflows/build/processor.py", {"quantization"}),
        ("backends/onnxruntime/graph.py", {"quantization"}),
        ("export/tensorrt_graph.py", GRAPHS | {"compile_"}),
        ("models/layers.py", GRAPHS | {"codes", "prompts", "weights"}),
        ("checkpoints/load.py", GRAPHS | {"codes", "prompts", "weights"}),
        ("backends/tensorrt/profiles.py", {"compile_"}),
        ("law/tolerance.py", {"image", "codes"}),
    ],
)
def test_an_edit_makes_stale_what_reads_it(edited: Path, file: str, stale: set[str]) -> None:
    before = digests()
    edit(edited / file)
    assert {stage for stage, digest in digests().items() if digest != before[stage]} == stale


def test_every_place_is_there_and_compiled_stages_share_one_list() -> None:
    for stage in READ_BY:
        assert all(place.exists() for place in read_by(stage))
        assert len(code_digest(stage)) == 16
    assert read_by("compile_target") == read_by("compile_")
