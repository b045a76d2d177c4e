"""The registry of families: names, layouts of an image's tokens, trained sizes, and what a header may say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from coolsd_rt.checkpoints.format import shapes_of
from coolsd_rt.checkpoints.load import load_draft, load_target, parse_config
from coolsd_rt.errors import UserError
from coolsd_rt.models.config import EagleConfig, LayerConfig
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.families import FAMILIES, _registry, family_named, family_of, parse_target, read_eagle
from coolsd_rt.models.families.anole import AnoleConfig
from coolsd_rt.models.families.lumina import LuminaConfig, image_head
from coolsd_rt.models.layout import Layout
from tests.models.family_cases import CONFIGS, random_draft, random_target

_7B = FAMILIES["lumina-mgpt"].models["7B"]


def test_a_lumina_image() -> None:
    """768 px: 2356 tokens of the model with the three before the codes, 512 px: 1060, as its public code has them."""
    for pixels, total in ((1024, 4164), (768, 2356), (512, 1060)):
        grid = FAMILIES["lumina-mgpt"].check_size("--size", pixels)
        cfg = LuminaConfig(vocab=8194, text=65536, grid=grid, **_7B)
        assert cfg.tokens + len(image_head(grid)) == total
        forced, code_positions = cfg.layout.forced, cfg.layout.code_positions
        assert len(code_positions) == grid * grid
        assert forced[grid] == 8192
        assert forced[-1] == 8193
        assert (forced == 8192).sum() == grid
        assert (forced[code_positions] == -1).all()
        assert set(np.flatnonzero(forced >= 0)) == set(range(cfg.tokens)) - set(code_positions.tolist())
    assert image_head(48) == (8197, 8804 + 24, 8804 + 24)


def test_an_anole_image() -> None:
    """1024 codes in raster order and nothing between them, as LANTERN's public code has it."""
    family = FAMILIES["anole"]
    cfg = AnoleConfig(vocab=8192, text=65536, grid=family.check_size("--size", None), **family.models["7B"])
    assert (cfg.tokens, cfg.layout.plain, cfg.layer.qk_norm, cfg.layer.pairs) == (1024, True, True, "half")
    assert shapes_of(cfg)["output.weight"] == (8192, 4096)


def test_a_plain_image() -> None:
    layout = Layout(8, 2, 3)
    assert (layout.tokens, layout.plain, layout.stride) == (6, True, 3)
    assert (layout.forced == -1).all()
    assert layout.code_positions.tolist() == list(range(6))


# Parameters of the published models, from models' cards, without the table of T5 features.
COUNTS = {
    "llamagen-c2i B": 110.9,
    "llamagen-c2i L": 342.9,
    "llamagen-c2i XL": 774.7,
    "llamagen-c2i XXL": 1411.0,
    "llamagen-c2i 3B": 3097.0,
    "llamagen-t2i XL": 777.9,
}


@pytest.mark.parametrize("name", COUNTS)
def test_published_sizes(name: str) -> None:
    family, size = name.split()
    cfg = FAMILIES[family].config(vocab=16384, grid=16, **FAMILIES[family].models[size])  # type: ignore[call-arg]
    count = sum(int(np.prod(shape)) for key, shape in shapes_of(cfg).items() if key != "cls_embedding.uncond_embedding")
    assert count / 1e6 == pytest.approx(COUNTS[name], rel=6e-4)


def test_trained_sizes() -> None:
    family = FAMILIES["llamagen-t2i"]
    assert [family.check_size("--size", n) for n in family.sizes] == [16, 32]
    assert FAMILIES["janus-pro"].check_size("--size", None) == 24
    for wrong in (384, 0, None):
        with pytest.raises(UserError, match=r"--size: expected .* trained on: 256, 512, found (384|0|nothing)"):
            family.check_size("--size", wrong)


def test_names() -> None:
    assert [family_of(cfg).name for cfg in CONFIGS.values()] == list(CONFIGS)
    with pytest.raises(UserError, match="did you mean 'janus-pro'"):
        family_named("janus-por", "x")
    with pytest.raises(ValueError, match="two families"):
        _registry(FAMILIES["janus-pro"], FAMILIES["janus-pro"])
    with pytest.raises(UserError, match=r"f: config: family: expected one of llamagen, .*, found 3"):
        parse_target(Path("f"), {"family": 3})


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("llamagen-c2i", {"prefix": 2}, "config: prefix: expected 1"),
        ("lumina-mgpt", {"prefix": 2}, "config: prefix: expected at least the 3"),
        ("anole", {"prefix": 1}, "config: prefix: expected at least the 2"),
        ("lumina-mgpt", {"vocab": 2}, "config: vocab"),
        ("lumina-mgpt", {"kv_heads": 3}, "config: kv_heads: expected a divisor of 4"),
        ("janus-pro", {"dim": 66, "heads": 3}, None),
        ("janus-pro", {"dim": 63, "heads": 3}, "config: dim: expected .* multiple of 2"),
        ("janus-pro", {"head": 0}, "config: head: expected positive"),
        ("janus-pro", {"words": 4}, "config: words: expected one of .*an unknown key"),
        ("llamagen-t2i", {"grid": 0}, "config: grid"),
    ],
)
def test_headers(name: str, change: dict[str, int], words: str | None) -> None:
    data = {"family": name, **{k: v for k, v in asdict(CONFIGS[name]).items() if v is not None}, **change}
    if words is None:
        parse_target(Path("f"), data)
        return
    with pytest.raises(UserError, match=words):
        parse_target(Path("f"), data)


def test_heads_of_another_target(tmp_path: Path) -> None:
    target = random_target(CONFIGS["lumina-mgpt"])
    draft = random_draft(target, vocab=33)
    config = {k: v for k, v in asdict(draft.cfg).items() if v is not None}
    path = tmp_path / "draft.safetensors"
    save_file(dict(draft.state_dict()), str(path), metadata={"config": json.dumps(config)})
    assert read_eagle(path) == draft.cfg
    with pytest.raises(UserError, match=r"config: vocab: expected the target's 34, found 33"):
        load_draft(path, target)
    own = random_draft(target, vocab=34)
    save_file(dict(own.state_dict()), str(path), metadata={"config": json.dumps(config | {"vocab": 34})})
    assert load_draft(path, target).table(target) is not target.tok_embeddings
    with pytest.raises(UserError, match="config: kv_heads"):
        parse_config(Path("f"), EagleConfig, {"dim": 64, "heads": 4, "ffn": 96, "kv_heads": 3})


def test_heads_that_draft_a_part_of_the_vocabulary(tmp_path: Path) -> None:
    target = random_target(CONFIGS["llama"])
    draft, path = random_draft(target, draft_vocab=7), tmp_path / "draft.safetensors"

    def write(draft: Eagle = draft, **changes: Tensor) -> None:
        config = {k: v for k, v in asdict(draft.cfg).items() if v is not None}
        save_file({**draft.state_dict(), **changes}, str(path), metadata={"config": json.dumps(config)})

    write()
    assert draft.draft_ids is not None
    ids, x = draft.draft_ids.long(), torch.randn(2, 3, target.cfg.dim)
    for lazy in (False, True):
        loaded = load_draft(path, target, torch.float16, lazy=lazy)
        assert loaded.draft_ids is not None
        assert loaded.draft_ids.tolist() == ids.tolist()
        assert loaded.draft_ids.dtype == torch.int32
    logits, whole = draft.logits(target, x), target.logits(x)
    assert torch.allclose(logits[..., ids], whole[..., ids], atol=1e-6)
    q = torch.softmax(logits, -1)
    assert q[..., ids].sum(-1).allclose(torch.ones(2, 3))
    assert int((q > 0).sum()) == 2 * 3 * 7
    for wrong in ([0, 1, 2, 3, 4, 5, 5], [1, 0, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, target.cfg.vocab], [-1, *range(6)]):
        write(draft_ids=torch.tensor(wrong, dtype=torch.int32))
        with pytest.raises(UserError, match="draft_ids: expected rising ids of the target's"):
            load_draft(path, target)
    write(draft_ids=ids.half())
    with pytest.raises(UserError, match="draft_ids: expected one of I32, found F16; save it as int32"):
        load_draft(path, target)
    other = random_target(CONFIGS["janus-pro"])
    write(random_draft(other, draft_vocab=7))
    with pytest.raises(UserError, match="config: draft_vocab: expected none for a target whose output head has two"):
        load_draft(path, other)


def test_layer_sizes() -> None:
    layer = LayerConfig(64, 4, 96)
    assert (layer.cache_heads, replace(layer, kv_heads=2).cache_heads, layer.head_dim) == (4, 2, 16)


def test_families_need_no_torch() -> None:
    code = "import sys, coolsd_rt.models.families; assert not {'torch', 'safetensors', 'onnx'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_released_weights_are_of_the_first_family() -> None:
    """The demo's files have no family in their header."""
    path = Path(__file__).parents[2] / "pipelines/emoji/target.safetensors"
    target = load_target(path)
    assert family_of(target.cfg).name == "llamagen"
    words, codes = torch.full((1, target.cfg.prefix), 3), torch.zeros(1, target.cfg.tokens, dtype=torch.int64)
    with torch.no_grad():
        logits, _ = target(words, codes)
    assert torch.isfinite(logits).all()
