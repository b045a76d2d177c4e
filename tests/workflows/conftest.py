"""A real engine folder (spec, manifest, hashes) whose graphs are the fake's: what `generate` opens in these tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coolsd_rt.backends import Description
from coolsd_rt.backends.description import NEIGHBOURS_FILE
from coolsd_rt.prompts import VOCABULARY_FILE
from coolsd_rt.spec import load_spec
from coolsd_rt.store import EngineFolder, EngineRecord, Stage, Store, sha256_file
from coolsd_rt.workflows import opening
from tests.workflows.fakes import DIMS, SIDE, VOCABULARY, FakeEngine

SPEC = """\
version: 1
name: fake
target: {model: llamagen, weights: target.safetensors}
draft: {model: eagle, weights: draft.safetensors, length: 3}
image: {tokenizer: vq, weights: vq.safetensors}
condition: {kind: words, vocab: vocab.json}
schedule: {kind: exponential, delta: 1.3}
pacing: {kind: manual}
sampling: {cfg_scale: 2.0}
engine: {max_batch: 2}
"""


def build_fake(folder: Path, neighbours: bytes | None = None, k: int = 64) -> EngineFolder:
    """folder/fake.yaml, its files, and an engine at folder/engines/fake.

    neighbours: the table of a stage `image`, with `k` a code.
    """
    for name in ("target", "draft", "vq"):
        (folder / f"{name}.safetensors").write_bytes(name.encode())
    VOCABULARY.save(folder / "vocab.json")
    path = folder / "fake.yaml"
    path.write_text(SPEC.replace("vq.safetensors}", f"vq.safetensors, neighbours: {k}}}"))
    loaded = load_spec(path)

    def produce(out: Path) -> None:
        (out / VOCABULARY_FILE).write_bytes((folder / "vocab.json").read_bytes())

    def decoder(out: Path) -> None:
        (out / NEIGHBOURS_FILE).write_bytes(neighbours or b"")

    store, hashes = Store(folder / "engines"), {key: sha256_file(p) for key, p in loaded.files.items()}
    stages = [store.stage(Stage("fake", files=hashes), produce)]
    if neighbours is not None:
        image = Stage("image", {"image.weights": hashes["image.weights"]}, {"side": SIDE, "forced": False})
        stages.append(store.stage(image, decoder))
    return store.assemble(
        stages,
        EngineRecord(
            name="fake",
            spec=loaded.spec.resolved(),
            build_view=loaded.spec.build_view(),
            tools={},
            contract=Description(DIMS, loaded.spec.draft.length, SIDE).as_dict(),
            spec_file=path,
        ),
    )


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tmp_path/engines/fake, opened as a FakeEngine."""
    monkeypatch.setattr(opening, "load_engine", lambda *_: FakeEngine())
    return build_fake(tmp_path).folder.parent


@pytest.fixture
def copy(tiny_spec: Path, tmp_path: Path) -> Path:
    """The tiny spec and its files in a folder that a test may change."""
    shutil.copytree(tiny_spec.parent, tmp_path / "spec")
    return tmp_path / "spec" / tiny_spec.name


@pytest.fixture
def warm(tiny_engine: EngineFolder, tiny_out: Path, tmp_path: Path) -> Path:
    """An output folder with every stage but the image's done, and no engine."""
    return _without("image", tiny_out, tmp_path / "engines")


@pytest.fixture
def nearly(tiny_engine: EngineFolder, tiny_out: Path, tmp_path: Path) -> Path:
    """The same without the stage that is the quickest to build, the condition's."""
    return _without("condition", tiny_out, tmp_path / "engines")


def _without(stage: str, whole: Path, out: Path) -> Path:
    shutil.copytree(whole / ".cache", out / ".cache", ignore=shutil.ignore_patterns(f"{stage}-*"))
    return out
