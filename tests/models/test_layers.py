"""The networks' laws: RoPE by its definition, caches that give what a whole sequence gives, a codebook that inverts."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from coolsd_rt.models.layers import RMSNorm, cached_step, rope_table, rotate
from tests.tiny import IMAGE, TARGET, networks


def test_rope_turns_by_row_and_column() -> None:
    grid, prefix, head_dim = 4, 3, 16
    table = rope_table(grid, prefix, head_dim)
    assert table.shape == (prefix + grid * grid, head_dim // 2, 2)
    for cell in range(grid * grid):
        row, column = divmod(cell, grid)
        for pair in range(head_dim // 2):
            at, axis = pair % (head_dim // 4), row if pair < head_dim // 4 else column
            angle = axis * 1e4 ** (-2 * at / (head_dim // 2))
            cos, sin = table[prefix + cell, pair].tolist()
            assert cos == pytest.approx(math.cos(angle), abs=1e-6)
            assert sin == pytest.approx(math.sin(angle), abs=1e-6)


@pytest.mark.parametrize(("kind", "length"), [("zero", 0.0), ("identity", 1.0)])
def test_prefix_rows(kind: Literal["zero", "identity"], length: float) -> None:
    """LlamaGen's own prefix rows are zeros: prefix queries and keys vanish. Identity leaves them as they are."""
    table = rope_table(2, 3, 8, prefix_rope=kind)[:3]
    x = torch.randn(1, 1, 3, 8)
    assert torch.equal(rotate(x, table[None, None, ..., 0], table[None, None, ..., 1]), x * length)


def test_rotation_keeps_lengths_and_is_relative() -> None:
    table = rope_table(4, 0, 8)
    cos, sin = table[None, None, ..., 0], table[None, None, ..., 1]
    q, k = torch.randn(1, 1, 1, 8).expand(1, 1, 16, 8), torch.randn(1, 1, 1, 8).expand(1, 1, 16, 8)
    tq, tk = rotate(q, cos, sin), rotate(k, cos, sin)
    assert torch.allclose(tq.norm(dim=-1), q.norm(dim=-1), atol=1e-5)
    scores = (tq @ tk.transpose(-1, -2))[0, 0].view(4, 4, 4, 4)
    assert torch.allclose(scores[1, 2, 0, 1], scores[3, 3, 2, 2], atol=1e-4)
    assert not torch.allclose(scores[1, 2, 0, 1], scores[1, 2, 1, 0], atol=1e-2)


def test_rms_norm_by_its_definition() -> None:
    norm = RMSNorm(6, 1e-5)
    norm.weight.data = torch.arange(1.0, 7.0)
    x = torch.randn(2, 6)
    assert torch.allclose(norm(x), x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight, atol=1e-6)


def test_padding_reads_the_last_rope_row() -> None:
    table = rope_table(2, 1, 8)
    step = cached_step(table, torch.tensor([4]), 3, 8)
    assert torch.equal(step.cos[0, 0], table[[4, 4, 4], :, 0])


def _image(rows: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randint(3, TARGET.words, (rows, TARGET.prefix)), torch.randint(0, TARGET.vocab, (rows, TARGET.tokens))


@torch.no_grad()
def test_steps_of_any_size_are_the_whole_sequence() -> None:
    """Teacher forcing at once, and cached steps of 3, 1 and 6 positions with ragged rows: the same logits."""
    target, _, _ = networks()
    words, codes = _image(2)
    whole, features = target(words, codes)
    prefix, caches = target.cls_embedding(words), target.caches(2, 24)
    w = TARGET.prefix
    ids = torch.cat([torch.zeros(2, w, dtype=torch.int64), codes], dim=1)
    pos = torch.zeros(2, dtype=torch.int64)
    logits, seen = target.step(ids[:, :w], pos, prefix, caches)
    assert torch.allclose(logits[:, -1], whole[:, 0], atol=1e-5)
    assert torch.allclose(seen, features[:, :w], atol=1e-5)
    pos = torch.tensor([w, w])
    for size, back in ((1, (0, 0)), (6, (4, 2)), (6, (0, 0)), (1, (0, 0))):
        rows = torch.stack([ids[r, pos[r] : pos[r] + size] for r in range(2)])
        logits, seen = target.step(rows, pos, prefix, caches)
        for r in range(2):
            at = int(pos[r])
            assert torch.allclose(logits[r], whole[r, at - w + 1 : at - w + 1 + size], atol=1e-5)
            assert torch.allclose(seen[r], features[r, at : at + size], atol=1e-5)
        pos = pos + size - torch.tensor(back)


@torch.no_grad()
def test_a_step_never_sees_what_lies_behind_it() -> None:
    """Stale rows beyond a step's positions are masked: writing rubbish there changes nothing."""
    target, _, _ = networks()
    words, codes = _image(1)
    prefix, caches = target.cls_embedding(words), target.caches(1, 24)
    pos = torch.zeros(1, dtype=torch.int64)
    target.step(torch.zeros(1, 3, dtype=torch.int64), pos, prefix, caches)
    clean, _ = target.step(codes[:, :1], pos + 3, prefix, caches)
    for cache in caches:
        cache.k[:, :, 4:] = 100.0
        cache.v[:, :, 4:] = 100.0
    stale, _ = target.step(codes[:, :1], pos + 3, prefix, caches)
    assert torch.equal(clean, stale)


@torch.no_grad()
def test_eagle_steps_are_its_whole_sequence() -> None:
    target, draft, _ = networks()
    words, codes = _image(2)
    _, features = target(words, codes)
    prefix = target.cls_embedding(words)
    embedded = torch.cat([prefix, target.tok_embeddings(codes)], dim=1)[:, 1:]
    whole = draft(embedded, features, target.rope)
    caches, w = draft.caches(2, 24), TARGET.prefix
    ids = torch.cat([torch.zeros(2, w, dtype=torch.int64), codes], dim=1)[:, 1:]
    pos = torch.zeros(2, dtype=torch.int64)
    for size in (w - 1, 1, 4, 2):
        at = slice(int(pos[0]), int(pos[0]) + size)
        logits, guessed = draft.step(target, ids[:, at], features[:, at], pos, prefix, caches)
        assert torch.allclose(guessed, whole[:, at], atol=1e-5)
        assert torch.allclose(logits, target.output(whole[:, at]), atol=1e-5)
        pos = pos + size


@torch.no_grad()
def test_the_codebook_inverts_and_images_have_their_size() -> None:
    _, _, image = networks()
    ids = torch.arange(IMAGE.codebook_size)
    assert torch.equal(image.quantize.nearest(image.quantize.lookup(ids) * 7), ids)
    assert torch.allclose(image.quantize.codes.norm(dim=-1), torch.ones(IMAGE.codebook_size), atol=1e-6)
    pixels = image.decode(torch.randint(0, 32, (2, 16)))
    assert pixels.shape == (2, 3, 8, 8)
    assert pixels.abs().max() <= 1
    assert image.encode(pixels).shape == (2, 16)
