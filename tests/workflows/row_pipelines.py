"""The tiny pipeline with a row head, and its engine."""

from __future__ import annotations

from pathlib import Path

import torch

from coolsd_rt.models.row_config import RowConfig
from coolsd_rt.models.rows import RowHead
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder
from coolsd_rt.train.networks import config_of
from coolsd_rt.workflows.build import run as building
from tests import tiny
from tests.workflows.building import edit

EAGLE = f"{{model: eagle, weights: draft.safetensors, length: {tiny.LENGTH}}}"
ROW = tiny.TARGET.grid
HEAD = RowConfig(tiny.TARGET.dim, ROW, 96, 2)


def pipeline(folder: Path, head: RowConfig = HEAD, length: int = ROW, engine: str = "precision: fp32") -> Path:
    """The tiny pipeline with a row head."""
    path = tiny.write_spec(folder)
    edit(path, EAGLE, f"{{model: rows, weights: rows.safetensors, length: {length}}}")
    edit(path, "precision: fp32", engine)
    torch.manual_seed(4)
    network = RowHead(head)
    tiny.write_weights(folder / "rows.safetensors", network, config_of(network))
    return path


def made(path: Path) -> EngineFolder:
    return building.build(building.plan(load_spec(path), path.parent / "engines")).engine
