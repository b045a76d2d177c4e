"""Trees of drafts by the ways that users take: a spec with `draft.tree` is built and drawn with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import coolsd_rt as cool
from coolsd_rt.errors import UserError
from coolsd_rt.runtime.trees import TreeShape
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder
from coolsd_rt.workflows import planning
from coolsd_rt.workflows.generate.identity import said_by
from coolsd_rt.workflows.generate.run import GenerateConfig, generate
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.plans import PLAIN, DraftPlan
from tests.stages import built
from tests.tiny import write_spec

WIDTHS = (2, 2, 1)
PROMPTS = ["red apple", "yellow star", "green apple"]
LOSSLESS: dict[str, Any] = {"schedule.kind": "none", "pacing.kind": "manual"}


def tree_spec(folder: Path, widths: tuple[int, ...] = WIDTHS) -> Path:
    path = write_spec(folder)
    text = path.read_text()
    assert "length: 3" in text
    path.write_text(text.replace("length: 3", f"tree: {list(widths)}", 1))
    return path


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> EngineFolder:
    path = tree_spec(tmp_path_factory.mktemp("tree"))
    return built(load_spec(path), path.parent / "engines")


def pixels(report: Any) -> list[np.ndarray]:
    return [np.asarray(Image.open(one.path)) for one in report.drawn]


def drawn(engine: EngineFolder, out: Path, **more: Any) -> Any:
    overrides = {**LOSSLESS, **more.pop("overrides", {})}
    return generate(engine.folder, GenerateConfig(PROMPTS, out, threads=1, overrides=overrides, **more))


def test_greedy_images_are_those_of_plain_decoding(engine: EngineFolder, tmp_path: Path) -> None:
    greedy = {"overrides": {"sampling.temperature": 0.0}}
    trees = drawn(engine, tmp_path / "trees", variants=2, **greedy)
    plain = generate(
        engine.folder,
        GenerateConfig(PROMPTS, tmp_path / "plain", 2, threads=1, plain=True, overrides={"sampling.temperature": 0.0}),
    )
    assert all((one == other).all() for one, other in zip(pixels(trees), pixels(plain), strict=True))
    assert trees.statistics.mean_acceptance_length > 1.0


def test_an_image_is_the_same_alone_and_says_its_tree(engine: EngineFolder, tmp_path: Path) -> None:
    beside = drawn(engine, tmp_path / "beside", variants=3, seed=5)
    alone = drawn(engine, tmp_path / "alone", seed=7)
    assert all((pixels(beside)[3 * k + 2] == pixels(alone)[k]).all() for k in range(3))
    said = said_by(alone.drawn[0].path)
    assert said["law"]["tree"] == list(WIDTHS)
    assert said["spec"]["draft"]["tree"] == list(WIDTHS)
    again = drawn(engine, tmp_path / "alone", seed=7)
    assert not any(one.written for one in again.drawn)
    with pytest.raises(UserError):  # another tree is another image
        drawn(engine, tmp_path / "alone", seed=7, draft_length=2)
    with cool.Pipeline.load(engine.folder, threads=1) as pipe:
        output = pipe(PROMPTS, seed=7, schedule="none", pacing="manual")
    assert all((np.asarray(one) == other).all() for one, other in zip(output.images, pixels(alone), strict=True))


def test_more_siblings_accept_more(engine: EngineFolder, tmp_path: Path) -> None:
    """The same engine and draft: a tree of one sibling at each depth is the chain."""
    tree = drawn(engine, tmp_path / "tree", variants=8)
    chain_spec = tree_spec(tmp_path / "chain", (1, 1, 1))
    chain = built(load_spec(chain_spec), tmp_path / "chain" / "engines")
    fewer = drawn(chain, tmp_path / "fewer", variants=8)
    assert tree.statistics.mean_acceptance_length > fewer.statistics.mean_acceptance_length


def test_a_plan_keeps_the_first_levels(engine: EngineFolder) -> None:
    settings = OpenedEngine.at(engine.folder).settings()
    assert settings.tree == TreeShape(WIDTHS)
    assert settings.drafts == 2 + 4 + 4
    assert planning.with_plan(settings, DraftPlan("eagle", 2)).tree == TreeShape(WIDTHS[:2])
    assert planning.with_plan(settings, PLAIN).tree is None
    assert planning.with_plan(settings, DraftPlan("jacobi", 2)).tree is None


@pytest.mark.parametrize(
    ("overrides", "more", "said"),
    [
        ({"resampler.kind": "waterfill"}, {}, "expected optimal with a tree, found waterfill"),
        (
            {"acceptance.rule": "lantern_pp", "acceptance.factor": 2.0, "acceptance.neighbours": 2},
            {},
            "expected ratio with a tree, found lantern_pp",
        ),
        ({"pacing.draft_confidence": 0.5}, {}, "expected 0 with a tree"),
        ({}, {"draft_length": 4}, "expected the tree's depth, 3"),
    ],
)
def test_what_does_not_go_with_a_tree(
    engine: EngineFolder, tmp_path: Path, overrides: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        generate(engine.folder, GenerateConfig(PROMPTS, tmp_path / "no", threads=1, overrides=overrides, **more))
    assert not (tmp_path / "no").exists()


def test_shorter_trees_and_other_drafts(engine: EngineFolder, tmp_path: Path) -> None:
    short = drawn(engine, tmp_path / "short", draft_length=1)
    assert len(short.statistics.acceptance_by_position) == 1
    assert drawn(engine, tmp_path / "jacobi", draft="jacobi", draft_length=2).statistics.mean_acceptance_length > 1.0
    plain = generate(engine.folder, GenerateConfig(PROMPTS, tmp_path / "plain", threads=1, plain=True))
    assert plain.statistics.draft_tokens == 0
