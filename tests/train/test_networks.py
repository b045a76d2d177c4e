"""Kinds and sizes of drafts, and the files that they become."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from coolsd_rt.checkpoints.load import load_draft, load_draft_model
from coolsd_rt.errors import UserError
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.families.lumina import LuminaConfig
from coolsd_rt.train.networks import DraftSizes, config_of, make_student, write_weights
from tests.tiny import networks

LUMINA = LuminaConfig(vocab=18, dim=32, layers=4, heads=4, ffn=48, text=20, grid=2, prefix=6, kv_heads=2)


def test_a_head_has_the_targets_form(tmp_path: Path) -> None:
    target = Decoder(LUMINA)
    head = make_student("eagle3", DraftSizes(layers=2, ffn=64), target, None, 0).network
    assert isinstance(head, Eagle)
    assert (head.cfg.dim, head.cfg.layers, head.cfg.ffn, head.cfg.layer.pairs) == (32, 2, 64, "half")
    assert head.cfg.layer.cache_heads == 2
    write_weights(tmp_path / "h.safetensors", head, config_of(head))
    assert load_draft(tmp_path / "h.safetensors", target).cfg == head.cfg
    for shape in (DraftSizes(dim=64), DraftSizes(heads=2)):
        with pytest.raises(UserError, match="--kind model"):
            make_student("eagle", shape, target, None, 0)


def test_a_model_is_of_the_targets_family(tmp_path: Path) -> None:
    target = Decoder(LUMINA)
    small = make_student("model", DraftSizes(layers=1, dim=16), target, None, 0).network
    assert isinstance(small, Decoder)
    assert (small.cfg.layers, small.cfg.heads, small.cfg.ffn, small.cfg.layer.cache_heads) == (1, 2, 24, 2)
    write_weights(tmp_path / "m.safetensors", small, config_of(small))
    assert load_draft_model(tmp_path / "m.safetensors", target).cfg == small.cfg
    with pytest.raises(UserError, match="--dim: expected none for the kind eagle3, which has the target's, found 16"):
        make_student("eagle3", DraftSizes(dim=16), target, None, 0)
    with pytest.raises(UserError, match="--dim"):
        make_student("model", DraftSizes(dim=18, heads=4), target, None, 0)


def test_a_start_keeps_its_sizes(tmp_path: Path) -> None:
    target, head, _ = networks()
    write_weights(tmp_path / "h.safetensors", head, config_of(head))
    found = make_student("eagle", DraftSizes(), target, tmp_path / "h.safetensors", 0).network
    assert found.cfg == head.cfg
    assert all(p.requires_grad for p in found.parameters())
    with pytest.raises(UserError, match=r"--from: expected the sizes of that file, found --ffn"):
        make_student("eagle", DraftSizes(ffn=7), target, tmp_path / "h.safetensors", 0)


def test_the_same_seed_is_the_same_start() -> None:
    target, _, _ = networks()
    a, b, c = (make_student("model", DraftSizes(), target, None, seed).network.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["output.weight"], c["output.weight"])
