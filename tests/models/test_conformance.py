"""What every registered family has to do: step as it reads a whole image, ignore padding and stale rows, load from
the file it was saved to, and say the same as graph modules and as exported graphs (tests/export/test_family_graphs).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from coolsd_rt.checkpoints.load import load_draft_model, load_target, model_dims
from coolsd_rt.errors import UserError
from coolsd_rt.models.config import DecoderConfig
from coolsd_rt.models.decoder import CLOSED, Decoder
from coolsd_rt.models.families import FAMILIES, family_of, read_target
from tests.models.family_cases import (
    CONFIGS,
    FAMILY_NAMES,
    ROWS,
    eager,
    image,
    random_draft,
    random_target,
    relative,
    stepped,
)

every_family = pytest.mark.parametrize("name", FAMILY_NAMES)


def saved(path: Path, target: Decoder) -> Path:
    config = {"family": family_of(target.cfg).name, **{k: v for k, v in asdict(target.cfg).items() if v is not None}}
    save_file(dict(target.state_dict()), str(path), metadata={"config": json.dumps(config)})
    return path


def test_every_family_has_a_case() -> None:
    assert set(CONFIGS) == set(FAMILIES)
    assert all(type(CONFIGS[name]) is family.config for name, family in FAMILIES.items())


@every_family
@torch.no_grad()
def test_steps_are_the_whole_image(name: str) -> None:
    """Prefill, single steps and verifications with rollback, rows of different starts: the logits of one pass."""
    cfg = CONFIGS[name]
    target, given = random_target(cfg), image(cfg)
    whole, features = target(given.condition, given.tokens, given.start)
    assert whole.shape == (ROWS, cfg.tokens, cfg.vocab)
    w = cfg.prefix
    for row, at, logits, seen in stepped(cfg, given.tokens, eager(target, given)):
        first = max(at, w - 1)
        wanted = whole[row, first - w + 1 : at + len(logits) - w + 1, : cfg.layout.codes]
        assert relative(logits[first - at :], wanted) < 1e-5
        begin = max(at, int(given.start[row]) if given.start is not None else 0)
        assert relative(seen[begin - at :], features[row, begin : at + len(seen)]) < 1e-5


@every_family
@torch.no_grad()
def test_stale_rows_and_padding_change_nothing(name: str) -> None:
    """Rubbish behind a row's end, and in front of its start, is never seen; a shorter prompt is itself, padded."""
    cfg = CONFIGS[name]
    target, given = random_target(cfg), image(cfg)
    prefix, caches = target.condition(given.condition), target.caches(ROWS, 40)
    pos = torch.zeros(ROWS, dtype=torch.int64)
    target.step(torch.zeros(ROWS, cfg.prefix, dtype=torch.int64), pos, prefix, caches, given.start)
    clean, _ = target.step(given.tokens[:, :2], pos + cfg.prefix, prefix, caches, given.start)
    for cache in caches:
        for half in cache:
            half[:, :, cfg.prefix + 2 :] = 100.0
            for row, start in enumerate(given.start.tolist() if given.start is not None else []):
                half[row, :, :start] = -100.0
    stale, _ = target.step(given.tokens[:, :2], pos + cfg.prefix, prefix, caches, given.start)
    assert torch.equal(clean, stale)


@pytest.mark.parametrize("name", [n for n in FAMILY_NAMES if CONFIGS[n].padded])
@torch.no_grad()
def test_padding_is_as_if_it_were_not_there(name: str) -> None:
    """A row that starts late says what a model with so many fewer prefix positions says."""
    cfg = CONFIGS[name]
    target, given = random_target(cfg), image(cfg)
    assert given.start is not None
    whole, _ = target(given.condition, given.tokens, given.start)
    for row, start in enumerate(given.start.tolist()):
        config = {**asdict(cfg), "prefix": cfg.prefix - start}
        short = Decoder(type(cfg)(**config)).eval()
        state = target.state_dict()
        if "cls_embedding.uncond_embedding" in state:
            state["cls_embedding.uncond_embedding"] = state["cls_embedding.uncond_embedding"][start:]
        short.load_state_dict(state)
        alone, _ = short(given.condition[row : row + 1, start:], given.tokens[row : row + 1])
        assert relative(alone[0], whole[row]) < 1e-5


@every_family
@torch.no_grad()
def test_forced_ids_are_never_drawn(name: str) -> None:
    cfg = CONFIGS[name]
    target, given = random_target(cfg), image(cfg)
    logits, _ = target(given.condition, given.tokens, given.start)
    codes = cfg.layout.codes
    if codes < cfg.vocab:
        gap = logits[..., :codes].max(-1).values[..., None] - logits[..., codes:]
        assert torch.allclose(gap, torch.full_like(gap, CLOSED), atol=1e-3)
    guided = logits[1] + (logits[0] - logits[1]) * 7.5
    assert (torch.softmax(guided, -1)[..., codes:] == 0).all()


@every_family
def test_a_file_is_loaded_by_its_family(name: str, tmp_path: Path) -> None:
    target = random_target(CONFIGS[name])
    path = saved(tmp_path / "target.safetensors", target)
    assert read_target(path) == target.cfg
    loaded = load_target(path)
    assert loaded.cfg == target.cfg
    assert torch.equal(loaded.rope, target.rope)
    for key, value in target.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert load_draft_model(path, loaded).cfg == loaded.cfg
    other = random_target(CONFIGS["llamagen" if name != "llamagen" else "janus-pro"])
    with pytest.raises(UserError, match="config: family"):
        load_draft_model(path, other)


@every_family
@torch.no_grad()
def test_a_head_on_its_features(name: str) -> None:
    """An EAGLE head steps as it reads a whole image, of rows without padding."""
    cfg = CONFIGS[name]
    target, given = random_target(cfg), image(cfg)
    draft = random_draft(target)
    start = None if given.start is None else torch.zeros_like(given.start)
    _, features = target(given.condition, given.tokens, start)
    prefix, w = target.condition(given.condition), cfg.prefix
    embedded = torch.cat([prefix, target.tok_embeddings(given.tokens)], dim=1)[:, 1:]
    whole = draft(embedded, features, target.rope)
    caches = draft.caches(ROWS, 40)
    ids = torch.cat([torch.zeros(ROWS, w, dtype=torch.int64), given.tokens], dim=1)[:, 1:]
    pos = torch.zeros(ROWS, dtype=torch.int64)
    for size in (*((w - 1,) if w > 1 else ()), 1, 4, 2):
        at = slice(int(pos[0]), int(pos[0]) + size)
        logits, guessed = draft.step(target, ids[:, at], features[:, at], pos, prefix, caches, start)
        assert relative(guessed, whole[:, at]) < 1e-5
        assert relative(logits, target.logits(whole[:, at])) < 1e-5
        pos = pos + size


@every_family
def test_dims(name: str) -> None:
    cfg: DecoderConfig = CONFIGS[name]
    dims = model_dims(cfg, None)
    assert (dims.prefix, dims.tokens, dims.vocab) == (cfg.prefix, cfg.tokens, cfg.vocab)
    assert (dims.heads, dims.head_dim) == (cfg.layer.kv_heads or cfg.heads, cfg.dim // cfg.heads)
    assert dims.padded == (cfg.condition in ("text", "ids"))
    assert dims.condition_dim == (24 if name == "llamagen-t2i" else 0)
