"""Random models: every family's files are whole, belong together, and are read back as what was asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from coolsd_rt.checkpoints.load import load_draft, load_target, load_tokenizer
from coolsd_rt.errors import UserError
from coolsd_rt.models.config import DecoderConfig, VQConfig
from coolsd_rt.models.families import FAMILIES, family_of
from coolsd_rt.prompts import conditioner_files, load_conditioner
from coolsd_rt.spec import load_spec
from coolsd_rt.store import sha256_file
from coolsd_rt.workflows.build import stages
from coolsd_rt.workflows.build.describe import describe
from tools import random_model
from tools.random_model import PROMPTS, Pipeline, command, image_families, published, write_pipeline

SMALL = {"dim": 64, "layers": 2, "heads": 2, "ffn": 96, "grid": 4, "vocab": 34}
CONFIGS = {
    "llamagen-c2i": {"classes": 10},
    "llamagen-t2i": {"prefix": 8, "text_dim": 16},
    "lumina-mgpt": {"prefix": 64, "text": 8900},
    "anole": {"prefix": 64, "text": 8900},
    "janus-pro": {"prefix": 64, "text": 300, "head": 64},
}


def tiny(family: str) -> Pipeline:
    config: DecoderConfig = FAMILIES[family].config(**SMALL, **CONFIGS[family])
    image = VQConfig(
        codebook_size=config.layout.codes,
        codebook_dim=4,
        channels=8,
        multipliers=(1,) * 5,
        z_channels=8,
        res_blocks=1,
        norm_groups=4,
    )
    return Pipeline(f"{family}-tiny", config, image, 3)


def test_every_published_family_is_here() -> None:
    assert set(CONFIGS) == set(image_families())
    assert {f.name for f in FAMILIES.values() if f.models} - set(CONFIGS) == {"llama"}


@pytest.mark.parametrize("family", CONFIGS)
def test_a_family_is_written_whole(family: str, tmp_path: Path) -> None:
    if family in ("lumina-mgpt", "anole", "janus-pro"):
        pytest.importorskip("tokenizers")
    made = tiny(family)
    spec = load_spec(write_pipeline(tmp_path / "random", made))
    found = describe(spec)
    assert (found.dims.layers, found.dims.dim, found.draft_length) == (2, 64, 3)
    assert spec.spec.target.model == family
    assert spec.spec.acceptance.rule == "synthetic"
    target = load_target(spec.files["target.weights"])
    assert target.cfg == made.target
    load_draft(spec.files["draft.weights"], target)
    load_tokenizer(spec.files["image.weights"])
    hashes = {key: sha256_file(path) for key, path in spec.files.items()}
    files = conditioner_files(spec.spec.condition)
    stages.prompts(stages.BuildInputs(spec.files, hashes, found, "fp32", 1, files), tmp_path)
    conditioner = load_conditioner(spec.spec.condition, lambda name: tmp_path / name)
    for prompt in PROMPTS if family != "llamagen-c2i" else ("3",):
        conditioner.encode(prompt)


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_pipeline(tmp_path / folder, tiny("llamagen-c2i"), seed)
    a, b, c = (load_target(tmp_path / f / "llamagen-c2i-tiny.safetensors").output.weight for f in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(
    ("family", "size", "dim", "tokens"),
    [("llamagen-t2i", "XL", 1280, 256), ("llamagen-c2i", "3B", 3200, 256), ("lumina-mgpt", "7B", 4096, 1057),
     ("anole", "7B", 4096, 1024), ("janus-pro", "1B", 2048, 576)],
)  # fmt: skip
def test_published_sizes(family: str, size: str, dim: int, tokens: int) -> None:
    made = published(family, size)
    assert (made.target.dim, made.target.tokens) == (dim, tokens)
    assert family_of(made.target).name == family
    assert made.target.layout.codes == made.image.codebook_size
    assert made.draft.heads == made.target.heads
    assert published(family, size, layers=2).target == replace(made.target, layers=2)


@pytest.mark.parametrize(
    ("words", "found"),
    [(["--family", "llamagen", "--size", "B"], "--family: expected one of llamagen-c2i"),
     (["--family", "llamagen-c2i", "--size", "7B"], "--size: expected one of B, L, XL, XXL, 3B")],
)  # fmt: skip
def test_what_was_not_published_is_said(words: list[str], found: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [*words, "--out", str(tmp_path / "o")])
    assert isinstance(result.exception, UserError)
    assert found in str(result.exception)
    assert not (tmp_path / "o").exists()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_model, "published", lambda family, size, grid, layers: tiny(family))
    result = CliRunner().invoke(command, ["--family", "llamagen-c2i", "--size", "B", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert load_spec(Path(result.output.strip())).spec.name == "llamagen-c2i-tiny"
    assert json.loads(json.dumps(load_spec(Path(result.output.strip())).spec.resolved()))
