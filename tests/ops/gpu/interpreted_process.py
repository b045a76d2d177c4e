"""The kernels `process_logits` and `sample` in Triton's interpreter, and the reference. Run by test_interpreted.py."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coolsd_rt import ops as reference
from coolsd_rt.errors import CoolsdError
from coolsd_rt.ops.gpu import draft_sample, process_logits, raise_fault, sample
from tests.ops.gpu.cases import fresh, laws, uniforms

# A probability near this, or a mass this near top_p, is decided by the last bit of an exponential.
TINY, NEAR = 1e-30, 2e-6


def check(probs: Tensor, logits: Tensor, scale: Tensor | None, temperature: float, top_k: int, top_p: float) -> None:
    """Assert that probs are the reference's: the same codes, to float32's accuracy the same numbers."""
    before = reference.process_logits(logits.float(), scale, temperature, top_k, 1.0)
    if top_p >= 1:
        assert torch.equal(probs > TINY, before > TINY)
        torch.testing.assert_close(probs, before, rtol=1e-5, atol=1e-12)
        return
    ordered, order = before.double().sort(dim=-1, descending=True)
    over = ordered.cumsum(-1) - ordered
    first = torch.cat([torch.ones_like(ordered[..., :1]).bool(), ordered[..., 1:] < ordered[..., :-1]], -1)
    over = torch.where(first, over, 0.0).cummax(-1).values  # of equals, all have the first one's
    stays = torch.empty_like(before, dtype=torch.float64).scatter_(-1, order, over)
    positive = before > TINY
    assert torch.equal((probs > 0) & positive & (stays < top_p - NEAR), positive & (stays < top_p - NEAR))
    assert not ((probs > 0) & (stays > top_p + NEAR)).any()
    expected = torch.where(probs > 0, before, 0.0)
    torch.testing.assert_close(probs, expected / expected.sum(-1, keepdim=True), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("images", "positions", "vocab", "top_k", "top_p", "temperature", "cfg", "dtype"),
    [
        (1, 6, 16384, 1000, 1.0, 1.0, True, torch.float32),
        (2, 1, 16384, 2000, 0.9, 0.7, True, torch.bfloat16),
        (1, 2, 16384, 0, 0.95, 1.3, False, torch.float16),
        (1, 1, 65536, 500, 0.8, 1.0, True, torch.float32),
        (1, 1, 65536, 0, 1.0, 1.0, False, torch.bfloat16),
        (64, 1, 512, 100, 1.0, 0.9, True, torch.float32),
        (3, 2, 1024, 1024, 0.5, 1.0, False, torch.float32),
        (2, 2, 1000, 1, 1.0, 1.0, True, torch.float32),
        (2, 2, 1000, 999, 0.99, 1.0, True, torch.float32),
        (2, 2, 300, 5000, 0.001, 1.0, False, torch.float32),
        (2, 2, 77, 10, 0.9, 0.0, True, torch.float32),
        (2, 2, 1, 1, 0.5, 1.0, True, torch.float32),
    ],
)
def test_against_the_reference(
    images: int, positions: int, vocab: int, top_k: int, top_p: float, temperature: float, cfg: bool, dtype: torch.dtype
) -> None:
    rng = fresh()
    logits = (torch.randn(images * (1 + cfg), positions, vocab, generator=rng) * 3).to(dtype)
    scale = torch.rand(images, positions, generator=rng) * 7.5 if cfg else None
    u = uniforms(rng, images, positions)
    tokens, probs = draft_sample(logits, scale, u, temperature, top_k, top_p)
    check(probs, logits, scale, temperature, top_k, top_p)
    assert torch.equal(tokens, reference.sample(probs, u))
    assert (probs.gather(-1, tokens[..., None]) > 0).all()
    if images < 64:
        assert torch.equal(process_logits(logits, scale, temperature, top_k, top_p), probs)


@given(st.data())
@settings(max_examples=40)
def test_ties(data: st.DataObject) -> None:
    """Small whole logits, signed zeros among them: every k, no rounding, ties everywhere."""
    vocab = data.draw(st.integers(1, 9))
    values = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0])
    logits = torch.tensor([[data.draw(st.lists(values, min_size=vocab, max_size=vocab))]])
    top_k = data.draw(st.integers(0, vocab + 1))
    probs = process_logits(logits, None, 1.0, top_k, 1.0)
    check(probs, logits, None, 1.0, top_k, 1.0)
    top_p = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.875]))
    check(process_logits(logits, None, 1.0, top_k, top_p), logits, None, 1.0, top_k, top_p)


def test_signed_zeros_tie() -> None:
    for values in ([0.0, -0.0, -1.0, 2.0], [-0.0, 0.0, -1.0, 2.0], [-0.0, -0.0, 0.0, 0.0]):
        logits = torch.tensor([[values]])
        check(process_logits(logits, None, 1.0, 2, 1.0), logits, None, 1.0, 2, 1.0)


@pytest.mark.parametrize("top_p", [0.25, 0.5, 0.75])
def test_a_mass_of_exactly_top_p(top_p: float) -> None:
    """The logits of 1/2, 1/4, 1/8, 1/8, to the last bit: a token stays while the likelier ones weigh top_p at most."""
    wanted = torch.tensor([0.5, 0.25, 0.125, 0.125])
    logits = wanted.log()[None, None]
    exact = process_logits(logits, None, 1.0, 0, 1.0)
    if not torch.equal(exact[0, 0], wanted):
        pytest.skip("this exponential rounds otherwise")
    expected = reference.process_logits(logits, None, 1.0, 0, top_p)
    torch.testing.assert_close(process_logits(logits, None, 1.0, 0, top_p), expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("cfg", [False, True])
def test_a_logit_that_is_not_finite(value: float, cfg: bool) -> None:
    rng = fresh()
    logits = torch.randn(4, 2, 500, generator=rng)
    logits[1, 1, 77] = value
    logits[3, 0, 499] = value  # unconditional under CFG, then row 1 position 0
    scale = torch.ones(2, 2) * 2 if cfg else None
    wrong = torch.zeros(2 if cfg else 4, 2, dtype=torch.bool)
    wrong[1, 1] = wrong[1 if cfg else 3, 0] = True
    for top_k, top_p in ((0, 1.0), (40, 0.9)):
        tokens, probs = draft_sample(logits, scale, uniforms(rng, *wrong.shape), 1.0, top_k, top_p)
        assert torch.equal(probs.isnan().all(-1), wrong)
        assert torch.equal(probs.isnan().any(-1), wrong)
        assert ((tokens >= 0) & (tokens < 500)).all()


def test_forced() -> None:
    rng = fresh()
    logits = torch.randn(4, 3, 300, generator=rng)
    logits[0, 0] = torch.nan
    forced = torch.tensor([[7, -1, 299], [-1, 0, 300]])
    u = uniforms(rng, 2, 3)
    tokens, probs = draft_sample(logits, torch.ones(2, 3), u, 1.0, 50, 0.9, forced)
    free = process_logits(logits, torch.ones(2, 3), 1.0, 50, 0.9)
    for m, s in ((0, 0), (0, 2), (1, 1)):
        assert probs[m, s].count_nonzero() == 1
        assert probs[m, s, forced[m, s]] == 1.0
        assert tokens[m, s] == forced[m, s]
    assert torch.equal(probs[0, 1], free[0, 1])
    assert torch.equal(probs[1, 0], free[1, 0])
    assert probs[1, 2].isnan().all()  # no such code


@pytest.mark.parametrize(("rows", "vocab"), [(20, 1024), (3, 16384), (1, 65536), (10, 5), (4, 1)])
def test_sample(rows: int, vocab: int) -> None:
    rng = fresh()
    weights = (laws(rng, rows, vocab) * 3).reshape(rows, 1, vocab)
    for u in (uniforms(rng, rows, 1), torch.zeros(rows, 1), torch.ones(rows, 1)):
        tokens, fault = sample(weights, u)
        assert torch.equal(tokens, reference.sample(weights, u))
        assert not fault.any()


def test_weights_without_a_total() -> None:
    weights = torch.rand(5, 1, 300)
    weights[1], weights[2, 0, 4], weights[3, 0, 299] = 0.0, torch.nan, torch.inf
    _, fault = sample(weights, torch.rand(5, 1))
    assert fault.bool().flatten().tolist() == [False, True, True, True, False]
    with pytest.raises(CoolsdError, match="cannot be sampled"):
        raise_fault(fault)


def test_tensors_with_gaps() -> None:
    rng = fresh()
    logits, u = torch.randn(2, 300, 3, generator=rng).transpose(1, 2), uniforms(rng, 3, 2).T
    tokens, probs = draft_sample(logits, None, u, 1.0, 0, 1.0)
    check(probs, logits, None, 1.0, 0, 1.0)
    assert torch.equal(tokens, reference.sample(probs, u))
