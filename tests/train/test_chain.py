"""Own predictions from every position at once are what a round's single steps give, and one step is the plain pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle, EagleConfig
from coolsd_rt.models.families.llamagen import CaptionConfig
from coolsd_rt.train.chain import chain_mask, own_predictions
from tests.tiny import networks

DEPTHS = 3


def _inputs(target: Decoder, text: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    codes = torch.randint(0, target.cfg.vocab, (len(text), target.cfg.tokens))
    prefix = target.condition(text)
    _, features = target(text, codes, start)
    embedded = torch.cat([prefix[:, 1:], target.tok_embeddings(codes)], dim=1)
    return codes, prefix, features, embedded


def _stepped(
    head: Eagle, target: Decoder, last: int, codes: Tensor, prefix: Tensor, features: Tensor, start: Tensor | None
) -> list[Tensor]:
    """A round by the contract: rows up to `last` in one step with real features, then its own guesses one by one."""
    rows, width = len(codes), target.cfg.prefix
    ids = torch.cat([torch.zeros(rows, width, dtype=torch.int64), codes], dim=1)
    caches = head.caches(rows, width + target.cfg.tokens + DEPTHS)
    zero = torch.zeros(rows, dtype=torch.int64)
    _, guess = head.step(target, ids[:, 1 : last + 2], features[:, : last + 1], zero, prefix, caches, start)
    out = [guess[:, -1]]
    for depth in range(1, DEPTHS):
        at = last + depth
        _, guess = head.step(target, ids[:, at + 1 : at + 2], out[-1][:, None], zero + at, prefix, caches, start)
        out.append(guess[:, -1])
    return out


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_every_chain_is_what_a_round_would_step(padded: bool) -> None:
    if padded:
        torch.manual_seed(0)
        cfg = CaptionConfig(vocab=32, dim=64, layers=1, heads=2, ffn=96, grid=4, prefix=5, text_dim=8)
        target, head = Decoder(cfg).eval(), Eagle(EagleConfig(dim=64, heads=2, ffn=96, layers=2)).eval()
        text, start = torch.randn(2, 5, 8), torch.tensor([0, 2])
    else:
        target, head, _ = networks()
        text, start = torch.randint(3, 8, (2, 3)), None
    codes, prefix, features, embedded = _inputs(target, text, start)
    size = features.shape[1] - 1
    found = own_predictions(head, target, embedded[:, :size], features[:, :size], DEPTHS, start)
    for last in range(target.cfg.prefix - 1, size - DEPTHS + 1):
        for depth, wanted in enumerate(_stepped(head, target, last, codes, prefix, features, start)):
            assert torch.allclose(found[depth][:, last + depth], wanted, atol=2e-5), (last, depth)


@torch.no_grad()
def test_one_step_is_the_plain_pass_and_the_first_of_several() -> None:
    target, head, _ = networks()
    _, _, features, embedded = _inputs(target, torch.randint(3, 8, (2, 3)), None)
    plain = head(embedded, features, target.rope)
    assert torch.equal(own_predictions(head, target, embedded, features, 1)[0], plain)
    several = own_predictions(head, target, embedded, features, 3)
    assert torch.allclose(several[0], plain, atol=1e-5)
    assert not torch.allclose(several[1], plain, atol=1e-2)


def test_gradients_pass_through_all_guesses() -> None:
    target, head, _ = networks()
    target.requires_grad_(False)
    _, _, features, embedded = _inputs(target, torch.randint(3, 8, (2, 3)), None)
    given = features.clone().requires_grad_(True)
    last = own_predictions(head.requires_grad_(True), target, embedded, given, 3)[2]
    last[:, 6].sum().backward()
    assert given.grad is not None
    reached = given.grad.abs().sum((0, 2)) > 0
    assert reached.tolist() == [True] * 5 + [False] * (len(reached) - 5)  # rows up to 6 - 2, and no later one
    assert all(p.grad is not None for p in head.parameters())


def test_a_row_sees_the_real_rows_before_its_start_and_its_own_chain() -> None:
    mask = chain_mask(torch.ones(4, 4, dtype=torch.bool).tril()[None, None], 2)[0, 0]
    assert mask[3].nonzero()[:, 0].tolist() == [0, 1, 4 + 2, 8 + 3]
