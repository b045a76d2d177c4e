"""Engines whose draft is a row head: built, proven against eager PyTorch, drawn with, and refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.models.row_config import RowConfig
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows.build import run as building
from coolsd_rt.workflows.generate.run import GenerateConfig, generate
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.parity.run import parity
from tests import tiny
from tests.workflows.building import edit
from tests.workflows.row_pipelines import HEAD, ROW, made, pipeline


@pytest.mark.parametrize("engine", ["precision: fp32", "precision: int8", "precision: fp32, backend: torch"])
def test_rows_are_drafted(engine: str, tmp_path: Path) -> None:
    """As eager PyTorch drafts them; the same images again; and never more drafts than a row has."""
    built = made(pipeline(tmp_path, engine=engine))
    sizes = built.manifest.contract["dims"]
    assert (sizes["row"], sizes["ahead"], sizes["draft_layers"]) == (ROW, 2, 0)
    if "int8" not in engine:  # random weights say nothing of int8
        found = parity(built.folder, images=4)
        assert found.passed, found.failures
        assert found.images.identical == 4
        if "torch" not in engine:
            assert found.graphs.draft.values > 0
            assert found.graphs.draft.largest < 1e-3
    reports = [
        generate(built.folder, GenerateConfig(["red apple", "blue star"], tmp_path / name, 2)) for name in ("a", "b")
    ]
    pairs = zip(reports[0].drawn, reports[1].drawn, strict=True)
    assert all(a.path.read_bytes() == b.path.read_bytes() for a, b in pairs)
    assert reports[0].statistics.draft_tokens > 0
    assert len(reports[0].statistics.accepts) <= ROW


@pytest.mark.parametrize(
    ("head", "length", "said"),
    [
        (replace(HEAD, row=8), 3, rf"rows.safetensors: config: row: expected the target's {ROW}, found 8"),
        (
            replace(HEAD, dim=32),
            3,
            rf"rows.safetensors: config: dim: expected the target's {tiny.TARGET.dim}, found 32",
        ),
        (HEAD, ROW + 1, rf"tiny.yaml:\d+: draft.length: expected at most the row's {ROW} tokens, found {ROW + 1}"),
    ],
)
def test_a_head_of_another_target(head: RowConfig, length: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        building.plan(load_spec(pipeline(tmp_path, head, length)), tmp_path / "engines")


@pytest.mark.parametrize("backend", ["tensorrt", "torch", "onnxruntime"])
def test_on_a_gpu_it_is_refused_with_its_line(backend: str, tmp_path: Path) -> None:
    path = pipeline(tmp_path, engine=f"precision: fp16, device: cuda, backend: {backend}")
    said = rf"tiny.yaml:\d+: draft.model: expected onnxruntime or torch on cpu with a row head, found {backend} on cuda"
    with pytest.raises(UserError, match=said):
        load_spec(path)


def test_another_drafts_file(tmp_path: Path) -> None:
    path = pipeline(tmp_path)
    edit(path, "rows.safetensors", "draft.safetensors")
    with pytest.raises(UserError, match=r"draft.safetensors: config: heads: expected one of dim, row, ffn"):
        building.plan(load_spec(path), tmp_path / "engines")


def test_an_engine_without_one_cannot_be_told_to_draft_rows(tiny_engine: EngineFolder) -> None:
    """A rule that needs what the drafter does not give: the same names as ever, and one line."""
    assert "row" not in OpenedEngine.at(tiny_engine.folder).description.as_dict()["dims"]
    with pytest.raises(UserError, match="the draft: expected one of jacobi, jacobi-coupled, jacobi-gumbel, ngram"):
        generate(tiny_engine.folder, GenerateConfig(["red apple"], tiny_engine.folder / "no", draft="rows"))
