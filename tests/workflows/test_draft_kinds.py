"""Engines whose draft is a model of its own, and engines without one: built, proven and drawn with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coolsd_rt.errors import UserError
from coolsd_rt.models.llamagen import LlamaGen
from coolsd_rt.runtime.ngrams import NgramSizes
from coolsd_rt.spec import load_spec, with_jacobi
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.build import run as building
from coolsd_rt.workflows.generate.run import GenerateConfig, generate, resolve
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.parity.run import parity
from tests import tiny
from tests.stages import built
from tests.workflows.building import edit

SMALL = replace(tiny.TARGET, dim=32, layers=1, heads=1, ffn=48)
EAGLE = f"{{model: eagle, weights: draft.safetensors, length: {tiny.LENGTH}}}"


def pipeline(folder: Path, draft: str) -> Path:
    """The tiny pipeline with another draft."""
    path = tiny.write_spec(folder)
    edit(path, EAGLE, draft)
    return path


def made(path: Path, out: Path) -> EngineFolder:
    return built(load_spec(path), out)


@pytest.fixture(scope="module")
def none(tmp_path_factory: pytest.TempPathFactory) -> EngineFolder:
    """An engine without a draft model."""
    folder = tmp_path_factory.mktemp("none")
    path = pipeline(folder, "{model: jacobi, length: 5, coupled: maximal}")
    (folder / "draft.safetensors").unlink()
    return made(path, folder / "engines")


@pytest.fixture(scope="module")
def own(none: EngineFolder, tmp_path_factory: pytest.TempPathFactory) -> EngineFolder:
    """An engine whose draft is a LlamaGen of one layer, half as wide as the target; its other graphs are `none`'s."""
    folder = tmp_path_factory.mktemp("own")
    path = pipeline(folder, f"{{model: llamagen, weights: small.safetensors, length: {tiny.LENGTH}}}")
    torch.manual_seed(3)
    small = LlamaGen(SMALL)
    with torch.no_grad():
        small.output.weight.mul_(4)
    tiny.write_weights(folder / "small.safetensors", small, SMALL)
    return made(path, none.folder.parents[1])


def test_a_draft_model_of_its_own_has_its_own_prefix_and_no_fused_graph(own: EngineFolder) -> None:
    contract = own.manifest.contract
    assert contract["dims"]["draft_dim"] == SMALL.dim
    assert set(contract["graphs"]) == {"condition", "target", "draft", "image"}
    assert "draft.weights" in dict(own.manifest.stages["condition"].inputs["files"])
    engine = opening.load_engine(own.verified())
    prefix = np.asarray(engine.encode_condition(np.zeros((2, tiny.TARGET.prefix), np.int64)))
    assert prefix.shape[-1] == tiny.TARGET.dim + SMALL.dim


def test_an_engine_without_a_draft_has_no_such_stage(none: EngineFolder) -> None:
    assert set(none.manifest.contract["graphs"]) == {"condition", "target", "image"}
    assert set(none.manifest.stages) == {"condition", "target", "image"}


def test_both_are_proven_against_the_reference(own: EngineFolder, none: EngineFolder) -> None:
    found = parity(own.folder, images=4)
    assert found.passed, found.failures
    assert found.graphs.draft.values > 0
    assert found.graphs.draft.largest < 1e-3
    found = parity(none.folder, images=4)
    assert found.passed, found.failures
    assert found.graphs.draft.values == 0
    assert found.images.identical == 4


def test_both_draw(own: EngineFolder, none: EngineFolder, tmp_path: Path) -> None:
    for folder, name in ((own, "own"), (none, "none")):
        report = generate(folder.folder, GenerateConfig(["red apple", "blue star"], tmp_path / name, 3))
        assert len(report.drawn) == 6
        assert report.statistics.mean_acceptance_length > 1.0
        again = generate(folder.folder, GenerateConfig(["red apple", "blue star"], tmp_path / f"{name}2", 3))
        pairs = zip(report.drawn, again.drawn, strict=True)
        assert all(a.path.read_bytes() == b.path.read_bytes() for a, b in pairs)


def test_coupling_is_a_run_time_value(none: EngineFolder) -> None:
    spec = opening.spec_of(none)
    assert drawing.settings_of(spec).drafter == "jacobi_coupled"
    loaded = load_spec(none.folder.parents[2] / "tiny.yaml")
    other = loaded.spec.model_copy(update={"draft": loaded.spec.draft.model_copy(update={"coupled": None})})
    assert other.build_view() == loaded.spec.build_view()


@pytest.mark.parametrize(
    ("written", "drafter"),
    [
        ("maximal", "jacobi_coupled"), ("gumbel", "jacobi_gumbel"), ("null", "jacobi"),
        ("true", "jacobi_coupled"), ("false", "jacobi"),  # of specs of before
    ],
)  # fmt: skip
def test_couplings_by_name(tmp_path: Path, written: str, drafter: str) -> None:
    path = pipeline(tmp_path, f"{{model: jacobi, length: 5, coupled: {written}}}")
    assert drawing.settings_of(load_spec(path).spec).drafter == drafter


def test_a_coupling_that_is_not_known(tmp_path: Path) -> None:
    path = pipeline(tmp_path, "{model: jacobi, length: 5, coupled: minimal}")
    with pytest.raises(UserError, match=r"draft.coupled: expected one of maximal, gumbel.* found .*minimal"):
        load_spec(path)


def test_any_engine_draws_with_jacobi_drafts(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    plain = generate(tiny_engine.folder, GenerateConfig(["red apple"], tmp_path / "plain", plain=True))
    for kind in ("jacobi", "jacobi-coupled", "jacobi-gumbel"):
        report = generate(
            tiny_engine.folder, GenerateConfig(["red apple"], tmp_path / kind, 2, draft=kind, draft_length=4)
        )
        assert report.statistics.mean_acceptance_length > plain.statistics.mean_acceptance_length
        assert report.seconds_by_phase["draft"] == 0


@pytest.fixture(scope="module")
def repeats(none: EngineFolder, tmp_path_factory: pytest.TempPathFactory) -> EngineFolder:
    """An engine whose drafts are looked up; its graphs are `none`'s."""
    folder = tmp_path_factory.mktemp("repeats")
    path = pipeline(folder, "{model: ngram, length: 4, longest: 2}")
    (folder / "draft.safetensors").unlink()
    return made(path, none.folder.parents[1])


def test_an_engine_looks_drafts_up(repeats: EngineFolder, tmp_path: Path) -> None:
    assert set(repeats.manifest.contract["graphs"]) == {"condition", "target", "image"}
    found = parity(repeats.folder, images=4)
    assert found.passed, found.failures
    assert found.images.identical == 4
    report = generate(repeats.folder, GenerateConfig(["red apple", "blue star"], tmp_path / "a", 3))
    again = generate(repeats.folder, GenerateConfig(["red apple", "blue star"], tmp_path / "b", 3))
    assert 1.0 < report.statistics.mean_acceptance_length < 5.0
    pairs = zip(report.drawn, again.drawn, strict=True)
    assert all(a.path.read_bytes() == b.path.read_bytes() for a, b in pairs)


def test_what_is_looked_up_is_a_run_time_value(repeats: EngineFolder) -> None:
    settings = drawing.settings_of(opening.spec_of(repeats))
    assert (settings.drafter, settings.ngrams) == ("ngram", NgramSizes(2, 1))
    loaded = load_spec(repeats.folder.parents[2] / "tiny.yaml")
    longer = loaded.spec.draft.model_copy(update={"longest": 4, "shortest": 2})
    assert loaded.spec.model_copy(update={"draft": longer}).build_view() == loaded.spec.build_view()


def test_any_engine_draws_with_ngrams(tiny_engine: EngineFolder, tmp_path: Path) -> None:
    report = generate(tiny_engine.folder, GenerateConfig(["red apple"], tmp_path / "ngram", 2, draft="ngram"))
    assert report.statistics.mean_acceptance_length > 1.0
    assert report.statistics.draft_tokens > 0
    spec = resolve(OpenedEngine.at(tiny_engine.folder), GenerateConfig([], draft="ngram"))
    assert spec.resolved()["draft"] == {"model": "ngram", "length": drawing.NGRAM_LENGTH, "longest": 3, "shortest": 1}


def test_sizes_that_cannot_be_are_said_with_their_line(tmp_path: Path) -> None:
    path = pipeline(tmp_path, "{model: ngram, length: 4, longest: 2, shortest: 3}")
    with pytest.raises(UserError, match=r"tiny.yaml:\d+: draft.shortest: expected at most draft.longest, 2, found 3"):
        load_spec(path)


def test_a_jacobi_window_fits_the_image(tiny_engine: EngineFolder) -> None:
    opened = OpenedEngine.at(tiny_engine.folder)
    assert resolve(opened, GenerateConfig([], draft="jacobi")).draft.length == min(
        drawing.JACOBI_WINDOW, tiny.TARGET.tokens
    )
    with pytest.raises(UserError, match=r"^draft_length: expected a whole number from 1 to 65536, found 0"):
        resolve(opened, GenerateConfig([], draft="jacobi", draft_length=0))
    with pytest.raises(UserError, match=r"plain decoding: .* found a draft"):
        resolve(opened, GenerateConfig([], draft="jacobi", plain=True))
    with pytest.raises(
        UserError, match="the draft: expected one of jacobi, jacobi-coupled, jacobi-gumbel, ngram, found medusa"
    ):
        resolve(opened, GenerateConfig([], draft="medusa"))


def test_pacing_is_the_draft_models(tiny_spec: Path) -> None:
    spec = load_spec(tiny_spec).spec
    paced = spec.model_copy(update={"pacing": spec.pacing.model_copy(update={"confidence": 0.9})})
    assert with_jacobi(paced, 4).pacing.confidence == 0


@pytest.mark.parametrize(("change", "named"), [({"vocab": 16}, "vocab"), ({"prefix": 2}, "prefix")])
def test_a_draft_of_another_pipeline_is_refused(change: dict[str, int], named: str, tmp_path: Path) -> None:
    path = pipeline(tmp_path, "{model: llamagen, weights: small.safetensors, length: 2}")
    other = replace(SMALL, **change)  # type: ignore[arg-type]
    tiny.write_weights(tmp_path / "small.safetensors", LlamaGen(other), other)
    with pytest.raises(UserError, match=f"small.safetensors: config: {named}: expected the target's"):
        building.plan(load_spec(path), tmp_path / "engines")


def test_an_eagle_head_where_a_model_is_named_is_refused(tmp_path: Path) -> None:
    path = pipeline(tmp_path, "{model: llamagen, weights: draft.safetensors, length: 2}")
    with pytest.raises(
        UserError, match=r"draft.safetensors: config: kv_heads: expected one of vocab, dim.*found an unknown key"
    ):
        building.plan(load_spec(path), tmp_path / "engines")
