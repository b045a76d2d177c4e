"""On int8 an image's bits depend on its prompt, seed and settings: not on its mates, nor on how wide a step is.

The model has matrices of 128 and 256 rows: ONNX Runtime's products of an odd number of rows round differently there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.spec import Spec, load_spec, with_jacobi, with_overrides
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.parity.run import parity
from coolsd_rt.workflows.parity.widths import WidthDependence, compare_widths
from tests import stages
from tests.tiny import DRAFT, SPEC, TARGET, write_spec

PROMPTS = ("red apple", "blue star", "green leaf", "red star", "apple")
SEED = 11
PACED = {"pacing.confidence": 0.2, "pacing.draft_confidence": 0.1}


@pytest.fixture(scope="module", params=["block", "rowwise"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], EngineFolder]:
    """The int8 engine in either form of its matrices, batch invariant (as by default) or not."""
    folder = tmp_path_factory.mktemp("invariance")

    def made(invariant: bool) -> EngineFolder:
        asked = "precision: int8" if invariant else "precision: int8, batch_invariant: false"
        text = SPEC.replace("precision: fp32", asked).replace("quantization: block", f"quantization: {request.param}")
        target = replace(TARGET, dim=128, heads=4, ffn=256, layers=3)
        draft = replace(DRAFT, dim=128, heads=4, ffn=256)
        spec = write_spec(folder / str(invariant), text, target, draft)
        return stages.built(load_spec(spec), folder / "engines")

    return made


class Opened:
    """An engine, and images drawn with it."""

    def __init__(self, folder: EngineFolder) -> None:
        verified = folder.verified()
        self.engine: Engine = opening.load_engine(verified, 1)
        self.conditioner: Conditioner = opening.load_conditioner(verified)
        self.spec: Spec = opening.spec_of(folder)
        self.jobs = [Job(i, p, SEED + i, self.conditioner.encode(p)) for i, p in enumerate(PROMPTS)]

    def settings(self, scale: float, *, plain: bool = False, jacobi: int = 0, **values: Any) -> Settings:
        spec = with_overrides(self.spec, {"sampling.cfg_scale": scale, **values})
        return drawing.settings_of(with_jacobi(spec, jacobi) if jacobi else spec, plain=plain)

    def codes(self, settings: Settings, batch: int) -> np.ndarray[Any, Any]:
        parts = drawing.batches(self.jobs, batch)
        return np.concatenate([drawing.draw(self.engine, part, self.conditioner, settings).codes for part in parts])

    def dependence(self, scale: float) -> WidthDependence:
        settings = self.settings(scale)
        jobs = self.jobs[:3]
        codes = drawing.draw(self.engine, jobs, self.conditioner, settings).codes
        return compare_widths(self.engine, jobs, self.conditioner, settings, codes)


@pytest.fixture(scope="module")
def opened(built: Callable[[bool], EngineFolder]) -> Opened:
    return Opened(built(True))


@pytest.mark.parametrize("scale", [2.0, 1.0])  # pairs of rows, and an odd number of them
def test_a_logit_has_the_same_bits_in_any_step(opened: Opened, scale: float) -> None:
    """So a speculative round judges by the very P that plain decoding samples from: lossless is against int8 itself."""
    assert opened.dependence(scale).exact


def test_an_engine_that_is_not_invariant_is_exact_under_guidance(built: Callable[[bool], EngineFolder]) -> None:
    """Rows are in pairs then, so that an even number of them is what it has anyway."""
    assert Opened(built(False)).dependence(2.0).exact


def test_an_engine_that_is_not_invariant_shows_the_fault(built: Callable[[bool], EngineFolder]) -> None:
    """What the tests above would say of an odd number of rows, on a processor whose kernels differ."""
    found = Opened(built(False)).dependence(1.0)
    if found.exact:
        pytest.skip("this processor's kernels round alike at every width")
    assert 0 < max(found.width, found.mates) < 1


@pytest.mark.parametrize("scale", [2.0, 1.0])
@pytest.mark.parametrize(
    "values",
    [{"plain": True}, {}, PACED, {"schedule.kind": "none", **PACED}, {"jacobi": 5}, {"jacobi": 5, **PACED}],
    ids=["plain", "eagle", "paced", "lossless paced", "jacobi", "jacobi paced"],
)
def test_an_image_does_not_depend_on_its_mates(opened: Opened, scale: float, values: dict[str, Any]) -> None:
    settings = opened.settings(scale, **values)
    alone = opened.codes(settings, 1)
    for batch in (2, 3, 5):
        np.testing.assert_array_equal(opened.codes(settings, batch), alone)


def test_float32_is_exact_under_guidance_too(tmp_path: Path) -> None:
    """Attention is the same at every width in any engine for a CPU. Without guidance, one row has its own kernel."""
    folder = stages.built(load_spec(write_spec(tmp_path)), tmp_path / "engines")
    assert Opened(folder).dependence(2.0).exact


def test_parity_says_so_and_judges_an_engine_that_claims_it(
    built: Callable[[bool], EngineFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = built(True).folder
    assert parity(folder, images=2, threads=1).receipt()["batch_invariance"]["exact"] is True
    monkeypatch.setattr(
        "coolsd_rt.workflows.parity.run.compare_widths", lambda *given: WidthDependence(0.25, 0.0, len(given[1]))
    )
    missed = parity(folder, images=2, threads=1)
    assert not missed.passed
    assert any(line.startswith("batch invariance") and "batch_invariant: false" in line for line in missed.failures)


def test_only_onnx_runtime_on_a_cpu_can_be_asked_for_it(tmp_path: Path) -> None:
    text = SPEC.replace("precision: fp32", "backend: torch, batch_invariant: true")
    with pytest.raises(Exception, match="onnxruntime on cpu"):
        load_spec(write_spec(tmp_path, text))
