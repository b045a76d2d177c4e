"""The graph modules, before they are exported, against the eager networks: the same function in other words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from coolsd_rt.export.graphs import ConditionGraph, DraftGraph, ImageGraph, TargetGraph
from coolsd_rt.export.ops import kth_largest, tensor_scatter
from coolsd_rt.export.propose import ProposeGraph, draw
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.llamagen import LlamaGen
from coolsd_rt.ops import process_logits, sample
from coolsd_rt.train.networks import drafting
from tests.tiny import LENGTH, TARGET, networks

W = TARGET.prefix


@pytest.fixture(scope="module", params=[None, (1, 2, 5, 8, 13, 21, 30, 31)], ids=["all", "part"])
def made(request: pytest.FixtureRequest) -> tuple[LlamaGen, Eagle]:
    """A target and its head, which drafts all codes or eight of them."""
    target, draft, _ = networks()
    if request.param is None:
        return target, draft
    return target, drafting(draft, torch.tensor(request.param))


def flat(caches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
    return tuple(t for pair in caches for t in pair)


def test_tensor_scatter_writes_rows_and_leaves_its_input() -> None:
    past, update = torch.zeros(2, 1, 6, 2), torch.ones(2, 1, 3, 2)
    out = tensor_scatter(past, update, torch.tensor([0, 3]))
    assert past.sum() == 0
    assert out[:, 0, :, 0].tolist() == [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]


def test_kth_largest() -> None:
    x = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 5.0]])
    for k, wanted in ((1, [3, 5]), (2, [2, 5]), (3, [1, 0])):
        assert kth_largest(x, torch.tensor([k])).flatten().tolist() == wanted


@torch.no_grad()
def test_target_steps(made: tuple[LlamaGen, Eagle]) -> None:
    """Prefill, ragged rows, rollback: logits, features and caches."""
    target, _ = made
    graph, words = TargetGraph(target), torch.tensor([[3, 4, 5], [2, 2, 2]])
    prefix, eager = target.cls_embedding(words), target.caches(2, 16)
    assert torch.equal(ConditionGraph(target.cls_embedding)(words), prefix)
    caches = flat([(c.k.clone(), c.v.clone()) for c in eager])
    for pos, size in (((0, 0), W), ((3, 3), 4), ((5, 4), 1), ((5, 6), 5)):
        ids, at = torch.randint(0, 32, (2, size)), torch.tensor(pos)
        logits, features, *caches = graph(ids, at, prefix, tuple(caches))
        wanted, seen = target.step(ids, at, prefix, eager)
        assert torch.allclose(logits, wanted, atol=1e-4)
        assert torch.allclose(features, seen, atol=1e-4)
        for here, there in zip(caches, flat([(c.k, c.v) for c in eager]), strict=True):
            assert torch.allclose(here, there, atol=1e-5)


@torch.no_grad()
def test_draft_steps(made: tuple[LlamaGen, Eagle]) -> None:
    target, draft = made
    graph, prefix, eager = DraftGraph(draft, target), torch.randn(2, W, TARGET.dim), draft.caches(2, 16)
    caches = flat([(c.k.clone(), c.v.clone()) for c in eager])
    for pos, size in (((0, 0), W - 1), ((2, 2), 1), ((3, 4), 4)):
        ids, features, at = torch.randint(0, 32, (2, size)), torch.randn(2, size, TARGET.dim), torch.tensor(pos)
        logits, guessed, *caches = graph(ids, features, at, prefix, tuple(caches))
        wanted, seen = draft.step(target, ids, features, at, prefix, eager)
        assert torch.allclose(logits, wanted, atol=1e-4)
        assert torch.allclose(guessed, seen, atol=1e-4)


@pytest.mark.parametrize(("top_k", "temperature"), [(32, 1.0), (5, 0.7), (1, 1.0)])
@torch.no_grad()
def test_the_propose_graph_is_single_steps_and_sampling(
    made: tuple[LlamaGen, Eagle], top_k: int, temperature: float
) -> None:
    """Two images with ragged counts, and the single steps of the eager head with the ops of the loop."""
    target, draft = made
    torch.manual_seed(2)
    images, size = 2, 4
    prefix, eager = torch.randn(4, W, TARGET.dim), draft.caches(4, 16)
    for cache in eager:
        cache.k[:, :, :5].normal_()
        cache.v[:, :, :5].normal_()
    caches = flat([(c.k.clone(), c.v.clone()) for c in eager])
    ids, features = torch.randint(0, 32, (2, size)).repeat(2, 1), torch.randn(4, size, TARGET.dim)
    pos, count = torch.tensor([4, 5, 4, 5]), torch.tensor([4, 2, 4, 2])
    uniforms, scale = torch.rand(images, LENGTH), 1 + 2 * torch.rand(images, LENGTH)
    tokens, probs, *written = ProposeGraph(draft, target, LENGTH)(
        ids, features, pos, prefix, count, uniforms, scale, torch.tensor(temperature), torch.tensor([top_k]), caches
    )

    logits, guessed = draft.step(target, ids, features, pos, prefix, eager)
    for here, there in zip(written, flat([(c.k, c.v) for c in eager]), strict=True):
        assert torch.allclose(here, there, atol=1e-5)
    row = torch.arange(4)
    logits, feature = logits[row, count - 1][:, None], guessed[row, count - 1][:, None]
    for i in range(LENGTH):
        if i:
            both = torch.cat([tokens[:, i - 1], tokens[:, i - 1]])[:, None]
            logits, feature = draft.step(target, both, feature, pos + count - 1 + i, prefix, eager)
        q = process_logits(logits, scale[:, i : i + 1], temperature, top_k % 32, 1.0)
        assert torch.allclose(probs[:, i], q[:, 0], atol=1e-5)
        assert torch.equal(tokens[:, i], sample(q, uniforms[:, i : i + 1])[:, 0])
        assert ((probs[:, i] > 0).sum(-1) <= top_k).all()


@torch.no_grad()
def test_drawing_never_takes_a_code_without_weight() -> None:
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).repeat(4, 1)
    u = torch.tensor([0.0, 0.4999, 0.5, 1 - 2**-24])
    assert draw(probs, u[:, None].double()).tolist() == [1, 1, 3, 3]
    assert draw(probs, u[:, None].double()).tolist() == sample(probs, u).tolist()


@torch.no_grad()
def test_images_are_the_tokenizers() -> None:
    _, _, image = networks()
    codes = torch.randint(0, 32, (2, 16))
    pixels = ImageGraph(image)(codes)
    wanted = ((image.decode(codes) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    assert pixels.dtype == torch.uint8
    assert np.abs(pixels.numpy() - wanted).max() <= 0.5 + 1e-3
