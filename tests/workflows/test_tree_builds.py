"""An engine with a tree: built from a spec by the command line, proven by parity, opened and stepped."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coolsd_rt.backends import LoadOptions, load
from coolsd_rt.backends.onnxruntime.engine import OrtEngine
from coolsd_rt.backends.torch.eager import load as load_eager
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder, open_engine
from coolsd_rt.store.manifest import MANIFEST
from coolsd_rt.workflows.belonging import description_of
from coolsd_rt.workflows.build.run import BuildPlan, plan, with_precision
from tests.backends.side_by_side import CAPACITY, VOCAB, W, words
from tests.stages import built
from tests.tiny import LENGTH, SPEC, TARGET, write_spec
from tests.trees import TreeCheck
from tests.workflows.building import edit

TREE = SPEC.replace(f"length: {LENGTH}}}", "tree: [3, 2, 1]}")


def run(*words: object) -> str:
    """A command in its own process, which has to succeed; what it says."""
    command = [sys.executable, "-m", "coolsd_rt.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spec(tmp_path_factory.mktemp("tree") / "spec", TREE)


@pytest.fixture(scope="module")
def engine(spec: Path) -> EngineFolder:
    out = spec.parent.parent / "engines"
    made = built(load_spec(spec), out)
    run("build", spec, "--out", out)  # from the same stages
    found = open_engine(out / "tiny")
    assert found.folder == made.folder
    return found


def test_the_engine_says_that_it_has_a_tree(engine: EngineFolder) -> None:
    manifest, made = engine.manifest, description_of(engine)
    assert made.tree
    assert "propose.onnx" not in manifest.files
    assert manifest.build_view["draft"] == {"model": "eagle", "length": 3, "tree": True}
    assert manifest.spec["draft"]["tree"] == [3, 2, 1]
    names = [tensor["name"] for tensor in manifest.contract["graphs"]["target"]["inputs"]]
    assert names[:4] == ["ids", "pos", "depth", "seen"]


def test_its_chain_steps_are_the_references(engine: EngineFolder) -> None:
    assert "parity: passed" in run("parity", engine.folder, "-n", 2, "--threads", 1)


def test_it_steps_along_trees(engine: EngineFolder, spec: Path) -> None:
    """Loaded as every engine is: trees beside their paths, and beside the eager networks."""
    loaded, files = load(engine.verified(), LoadOptions(threads=1, spinning=False)), load_spec(spec).files
    assert isinstance(loaded, OrtEngine)
    prefix = loaded.encode_condition(words(2))
    eager = load_eager(files["target.weights"], files["draft.weights"], files["image.weights"])
    for other in (loaded.open(prefix, CAPACITY), eager.open(torch.from_numpy(prefix), CAPACITY)):
        TreeCheck(loaded.open(prefix, CAPACITY), other, 4, W, VOCAB, TARGET.dim, 1e-4).all()


def test_the_backend_torch_steps_along_trees(spec: Path, tmp_path: Path) -> None:
    """On a CPU, where its sessions step on the host; on a GPU a tree is refused before anything is built."""
    run("build", spec, "--backend", "torch", "--out", tmp_path)
    folder = open_engine(tmp_path / "tiny")
    assert description_of(folder).tree
    loaded = load(folder.verified(), LoadOptions(threads=1))
    prefix = loaded.encode_condition(words(2))
    TreeCheck(loaded.open(prefix, CAPACITY), loaded.open(prefix, CAPACITY), 4, W, VOCAB, TARGET.dim, 1e-5).all()
    command = [sys.executable, "-m", "coolsd_rt.cli", "build", str(spec), "--backend", "tensorrt", "--dry-run"]
    done = subprocess.run([*command, "--precision", "fp16"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "expected onnxruntime or torch on cpu with a tree, found tensorrt on cuda" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_without_a_tree_says_how_to_get_one(tiny_engine: EngineFolder) -> None:
    loaded = load(tiny_engine.verified(), LoadOptions(threads=1, spinning=False, later=frozenset(("image", "propose"))))
    assert isinstance(loaded, OrtEngine)
    session, one = loaded.open(loaded.encode_condition(words(1)), CAPACITY), np.zeros((2, 1), np.int64)
    with pytest.raises(CoolsdError, match=r"expected an engine with a tree, found one without.*draft\.tree"):
        session.target_tree(one, one[:, 0], one, np.ones((2, 1, 1), np.bool_))


def keys(made: BuildPlan) -> dict[str, str]:
    return {planned.name: planned.stage.key for planned in made.stages}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_tree_changes_what_steps_and_nothing_else(tmp_path: Path, precision: str) -> None:
    """The stages of target and draft have other keys; the widths are in no key; engines without a tree have none."""
    path = write_spec(tmp_path / "spec", TREE)

    def planned() -> BuildPlan:
        return plan(with_precision(load_spec(path), precision), tmp_path / "engines")

    wide = planned()
    edit(path, "tree: [3, 2, 1]", "length: 3, tree: [1, 1, 1]")
    narrow = planned()
    edit(path, "length: 3, tree: [1, 1, 1]", "length: 3")
    plain = planned()
    assert keys(wide) == keys(narrow)
    assert wide.fingerprint == narrow.fingerprint != plain.fingerprint
    assert {name for name, key in keys(plain).items() if keys(wide)[name] != key} == {"target", "draft"}
    for each in plain.stages:
        assert "tree" not in each.stage.inputs["spec"]


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ([33, 1], "draft.tree: expected widths of at most the 32 tokens that are drafted, found 33"),
        ([1] * 17, "draft.tree: expected depths, at most the image's 16 tokens, found 17"),
    ],
)
def test_trees_that_do_not_fit_the_models_are_refused(tmp_path: Path, tree: list[int], said: str) -> None:
    path = write_spec(tmp_path / "spec", TREE.replace("[3, 2, 1]", str(tree)))
    with pytest.raises(UserError) as caught:
        plan(load_spec(path), tmp_path / "engines")
    assert said in str(caught.value)


def test_a_manifest_that_contradicts_its_spec_is_refused(engine: EngineFolder, tmp_path: Path) -> None:
    """Its contract in itself is right: the graphs of an engine without a tree."""
    other = replace(description_of(engine), tree=False).as_dict()
    folder = tmp_path / engine.folder.name
    folder.mkdir()
    (folder / MANIFEST).write_text(
        json.dumps({**json.loads((engine.folder / MANIFEST).read_text()), "contract": other})
    )
    with pytest.raises(CoolsdError, match=r"contract\.tree: expected true, as at build time, found false"):
        description_of(open_engine(folder))
