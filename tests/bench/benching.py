"""A fake engine on a disk and a run of `bench` on it: what its tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coolsd_rt.bench.report import BenchReport
from coolsd_rt.bench.run import BenchConfig, bench
from coolsd_rt.law import nearest_codes
from coolsd_rt.workflows import opening
from tests.workflows.conftest import build_fake
from tests.workflows.fakes import DIMS, FakeEngine

PROMPTS = ("red apple", "yellow star", "green apple")
NEAR = nearest_codes(np.random.default_rng(0).standard_normal((DIMS.vocab, 3)).astype(np.float32), 12)


def use_fakes(patch: pytest.MonkeyPatch) -> None:
    """Engines are opened as fakes, with neighbours of their codes."""
    patch.setattr(opening, "load_engine", lambda *_: FakeEngine())
    patch.setattr(opening, "load_neighbours", lambda verified: NEAR)


def fake_engine(folder: Path) -> Path:
    """engines/fake in `folder`."""
    return build_fake(folder).folder.parent


def fake_report(engine: Path) -> BenchReport:
    """Every variant, six turns of two images."""
    with pytest.MonkeyPatch.context() as patch:
        use_fakes(patch)
        return bench(BenchConfig(engine, 6, 2, PROMPTS, seed=5, threads=1))
