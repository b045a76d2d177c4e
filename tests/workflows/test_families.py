"""Every family of targets, from a spec to images: built, proven, drawn; on ONNX Runtime and as networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from coolsd_rt.errors import UserError
from coolsd_rt.models.families import FAMILIES, read_target
from coolsd_rt.spec import Spec, load_spec, with_overrides
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows import drawing, opening
from coolsd_rt.workflows.build.run import build, plan, with_engine
from coolsd_rt.workflows.generate.run import GenerateConfig, generate
from coolsd_rt.workflows.parity.run import parity
from coolsd_rt.workflows.texts_request import WriteConfig, write
from tests.stages import built
from tests.workflows.building import edit
from tests.workflows.family_pipelines import CASES, PIXELS, write_pipeline

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")


def test_every_family_has_a_pipeline_here() -> None:
    assert set(CASES) == set(FAMILIES)


@pytest.fixture(scope="module", params=sorted(CASES))
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EngineFolder:
    path = write_pipeline(tmp_path_factory.mktemp(request.param), request.param)
    if request.param != "llama":  # whose engine other tests have; a second step is as any later one
        edit(path, "length: 3}", "length: 2}")
    return built(load_spec(path), path.parent / "engines")


def name_of(engine: EngineFolder) -> str:
    return str(engine.manifest.spec["target"]["model"])


def test_it_is_the_reference(engine: EngineFolder) -> None:
    """Logits of every graph, and whole images token by token, with prompts of different lengths in one batch."""
    outcome = parity(engine.folder, images=4, prompts=CASES[name_of(engine)].prompts)
    assert outcome.failures == ()
    assert outcome.images.identical == 4


def test_texts_are_compared_up_to_a_length(text_engine: EngineFolder) -> None:
    """Every graph along the first tokens alone; a text that was cut is no whole image, and images are not cut."""
    whole = parity(text_engine.folder, images=4)
    cut = parity(text_engine.folder, images=4, max_tokens=5)
    assert (whole.failures, cut.failures) == ((), ())
    assert (whole.images.tokens, cut.images.tokens) == (4 * 16, 4 * 5)
    receipt = cut.receipt()
    assert cut.images.codes[0].shape[1] == receipt["tokens_each"] == 5
    assert receipt["texts"] == receipt["whole_texts"]["texts"] == 4
    assert "images" not in {*receipt, *receipt["whole_texts"]}
    assert 0 < sum(map(len, cut.graphs.p.seen)) < sum(map(len, whole.graphs.p.seen))
    with pytest.raises(UserError, match="max tokens: expected 1 to 16"):
        parity(text_engine.folder, images=4, max_tokens=17)


def test_images_have_no_other_length(tiny_engine: EngineFolder) -> None:
    with pytest.raises(UserError, match="max tokens: expected an engine that writes text, found one that draws images"):
        parity(tiny_engine.folder, images=2, max_tokens=5)


def test_it_draws(engine: EngineFolder, tmp_path: Path) -> None:
    if opening.spec_of(engine).writes == "text":
        written = write(engine.folder, WriteConfig(list(CASES[name_of(engine)].prompts), 2))
        assert [text.job.prompt for text in written.texts] == ["red apple", "red apple", "star", "star"]
        assert all(1 <= len(text.ids) <= 16 for text in written.texts)
        return
    report = generate(engine.folder, GenerateConfig(list(CASES[name_of(engine)].prompts), tmp_path, 2))
    assert len(report.drawn) == 4
    for drawn in report.drawn:
        assert Image.open(drawn.path).size == (PIXELS, PIXELS)


def whole(spec: Spec, near: NDArray[np.int64] | None = None, *, forced: tuple[int, ...] | None) -> drawing.Settings:
    """The settings of a spec; its texts run on behind end tokens, so that they are as long as images."""
    settings = drawing.settings_of(spec, near, forced=forced)
    return settings if spec.text is None else replace(settings, bounds=drawing.TextBounds())


def codes_under(engine: EngineFolder, **values: object) -> NDArray[np.int64]:
    """One batch of images under run-time values; the forced tokens stand where they must."""
    verified = engine.verified()
    conditioner, forced = opening.load_conditioner(verified), opening.description_of(engine).forced
    spec = with_overrides(opening.spec_of(engine), {"schedule.kind": "none", **values})
    settings = whole(spec, opening.load_neighbours(verified), forced=forced)
    jobs = drawing.plan(CASES[name_of(engine)].prompts, 2, 3, conditioner)
    codes = drawing.draw(opening.load_engine(verified), jobs, conditioner, settings).codes
    for token, must in enumerate(forced or ()):
        assert must < 0 or (codes[:, token] == must).all()
    return codes


def test_rules_that_read_neighbours_draw_with_every_layout(engine: EngineFolder) -> None:
    """Line ends and an end are no codes, and have no neighbours; a rule that lends nothing is the ratio."""
    lantern = {"acceptance.rule": "lantern", "acceptance.neighbours": 3}
    for resampler in ("optimal", "waterfill"):
        strict = codes_under(engine, **{**lantern, "acceptance.bound": 0.0, "resampler.kind": resampler})
        assert np.array_equal(strict, codes_under(engine, **{"resampler.kind": resampler}))
    for resampler in ("optimal", "residual", "lantern", "waterfill"):
        codes_under(engine, **{**lantern, "acceptance.bound": 0.5, "resampler.kind": resampler})


def test_forced_tokens_stand_where_they_must(engine: EngineFolder) -> None:
    verified = engine.verified()
    conditioner, forced = opening.load_conditioner(verified), opening.description_of(engine).forced
    settings = whole(opening.spec_of(engine), forced=forced)
    jobs = drawing.plan(CASES[name_of(engine)].prompts, 1, 3, conditioner)
    codes = drawing.draw(opening.load_engine(verified), jobs, conditioner, settings).codes
    layout = CASES[name_of(engine)].config.layout
    assert (forced is None) == layout.plain
    fixed = layout.forced >= 0
    np.testing.assert_array_equal(codes[:, fixed], np.broadcast_to(layout.forced[fixed], codes[:, fixed].shape))
    assert (codes[:, ~fixed] < layout.codes).all()


def test_networks_draw_what_graphs_draw(engine: EngineFolder, tmp_path: Path) -> None:
    """The backend torch on the same weights: the same codes from the same seeds."""
    loaded = with_engine(load_spec(engine.folder.parent.parent.parent / "family.yaml"), backend="torch")
    drawn = []
    for folder in (engine, build(plan(loaded, tmp_path)).engine):
        verified = folder.verified()
        conditioner, forced = opening.load_conditioner(verified), opening.description_of(folder).forced
        settings = whole(opening.spec_of(folder), forced=forced)
        jobs = drawing.plan(CASES[name_of(engine)].prompts, 2, 5, conditioner)
        drawn.append(drawing.draw(opening.load_engine(verified), jobs, conditioner, settings).codes)
    np.testing.assert_array_equal(drawn[0], drawn[1])


def test_a_target_of_another_family_is_refused(tmp_path: Path) -> None:
    path = write_pipeline(tmp_path, "llamagen-c2i")
    edit(path, "model: llamagen-c2i", "model: janus-pro")
    with pytest.raises(UserError, match=r"family\.yaml:3: target\.model: expected .*llamagen-c2i.* found janus-pro"):
        plan(load_spec(path), tmp_path / "engines")


def test_a_condition_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = write_pipeline(tmp_path, "llamagen-c2i")
    edit(path, CASES["llamagen-c2i"].condition, CASES["llamagen"].condition)
    with pytest.raises(UserError, match=r"condition\.kind: expected .*class"):
        plan(load_spec(path), tmp_path / "engines")


def test_a_image_of_another_size_is_refused(tmp_path: Path) -> None:
    path = write_pipeline(tmp_path, "lumina-mgpt")
    assert read_target(tmp_path / "target.safetensors").layout.rows == 4
    edit(path, f"width: {PIXELS}", "width: 128")
    with pytest.raises(UserError, match=r"condition\.width: expected .*64.* found 128"):
        plan(load_spec(path), tmp_path / "engines")
