"""The loss: laws are the round's own, a perfect draft rejects nothing, and one own prediction is the plain loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coolsd_rt.ops import process_logits
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.train.objective import Objective
from coolsd_rt.train.students import Along, Example, FeatureCache, HeadStudent, ModelStudent, guided_logits
from tests.tiny import networks

FREE = torch.ones(16, dtype=torch.bool)
SAMPLINGS = [Sampling(), Sampling(top_k=5, temperature=0.7), Sampling(top_p=0.8), Sampling(top_k=9, top_p=0.6)]


def _example(images: int = 2, scale: float | None = 2.0) -> Example:
    torch.manual_seed(3)
    text = torch.randint(3, 8, (images, 3))
    both = text if scale is None else torch.cat([text, torch.full_like(text, 2)])
    codes = torch.randint(0, 32, (images, 16))
    return Example(both, None, codes, None if scale is None else torch.full(codes.shape, scale))


def _student() -> HeadStudent:
    target, head, _ = networks()
    return HeadStudent(head.requires_grad_(True), target.requires_grad_(False))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_law_is_the_rounds_and_has_a_gradient(sampling: Sampling) -> None:
    logits = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    law = Objective(sampling).law(logits)
    s = sampling
    wanted = process_logits(logits.detach(), None, s.temperature, s.top_k, s.top_p)
    assert torch.allclose(law, wanted, atol=1e-6)
    assert torch.equal(law == 0, wanted == 0)
    law[..., 0].sum().backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_a_perfect_draft_has_no_tv_and_the_smallest_loss() -> None:
    torch.manual_seed(0)
    logits, nothing = torch.randn(2, 16, 7), torch.zeros(())
    objective = Objective(Sampling(top_k=4))
    best, tvs = objective.loss(Along(0, logits, [logits, logits], [nothing, nothing]), FREE)
    assert tvs == pytest.approx([0, 0], abs=1e-6)
    off = logits + 0.5 * torch.randn_like(logits)
    worse, tvs = objective.loss(Along(0, logits, [off, logits], [nothing, nothing]), FREE)
    assert tvs[0] > 0.01
    assert worse > best


def test_forced_tokens_and_rows_before_a_chain_do_not_count() -> None:
    torch.manual_seed(0)
    logits, nothing = torch.randn(2, 16, 7), torch.zeros(())
    free = FREE.clone()
    free[4] = False
    wrong = logits.clone()
    wrong[:, 4] += 9 * torch.randn(7)
    later = logits.clone()
    later[:, 0] += 9 * torch.randn(7)  # row 0 has no chain of depth 1
    objective = Objective(Sampling())
    loss, tvs = objective.loss(Along(0, logits, [wrong, later], [nothing, nothing]), free)
    right, _ = objective.loss(Along(0, logits, [logits, logits], [nothing, nothing]), free)
    assert tvs == pytest.approx([0, 0], abs=1e-6)
    assert loss.item() == pytest.approx(right.item(), abs=1e-5)


def _plain_loss(student: HeadStudent, example: Example, objective: Objective) -> Tensor:
    """EAGLE's loss on one pass of the head, written out."""
    target, width = student.target, student.target.cfg.prefix
    codes = example.both()
    _, features = target(example.text, codes)
    embedded = torch.cat([target.condition(example.text)[:, 1:], target.tok_embeddings(codes)], dim=1)
    guess = student.network(embedded[:, :-1], features[:, :-1], target.rope)[:, width - 2 :]
    truth = features[:, width - 1 :]
    logits, wanted = (guided_logits(target, x, example.scale) for x in (guess, truth))
    p, s = objective.law(wanted), objective.sampling
    q = process_logits(logits.detach(), None, s.temperature, s.top_k, s.top_p)
    soft = -(p * torch.log_softmax(logits / s.temperature, -1)).sum(-1).mean()
    tv = 0.5 * (p - q).abs().sum(-1).mean()
    smooth = torch.nn.functional.smooth_l1_loss(guess, truth)
    return torch.as_tensor(soft + objective.tv * tv + objective.features * smooth)


@pytest.mark.parametrize("tv", [1.0, 6.0])
@pytest.mark.parametrize("scale", [None, 2.0])
def test_one_own_prediction_is_the_plain_loss(scale: float | None, tv: float) -> None:
    student, example, objective = _student(), _example(scale=scale), Objective(Sampling(top_k=6, temperature=0.8), tv)
    found, tvs = objective.loss(student.along(example, 1), FREE)
    assert len(tvs) == 1
    assert found.item() == pytest.approx(_plain_loss(student, example, objective).item(), rel=1e-5)


def test_deeper_predictions_weigh_less() -> None:
    student, example = _student(), _example()
    along = student.along(example, 3)
    parts = [
        Objective(Sampling(), decay=1.0).loss(Along(along.first, along.target, [x] * 1, [s] * 1), FREE)[0]
        for x, s in zip(along.drafts[:1], along.smooth[:1], strict=True)
    ]
    only_first = Objective(Sampling(), decay=0.0).loss(along, FREE)[0]
    assert only_first.item() == pytest.approx(parts[0].item(), rel=1e-6)
    loss = [Objective(Sampling(), decay=d).loss(along, FREE)[0].item() for d in (0.0, 0.5, 1.0)]
    second = 4 * loss[1] - loss[2] - 3 * loss[0]  # l0 + l1 / 2 + l2 / 4 and l0 + l1 + l2 give l1
    third = loss[2] - loss[0] - second
    assert second > 0
    assert third > 0


def test_remembered_features_are_the_targets() -> None:
    student = _student()
    example = _example()._replace(numbers=(7, 3))
    memory = FeatureCache()
    first = memory.features(student.target, example)
    swapped = Example(example.text[[1, 0, 3, 2]], None, example.codes[[1, 0]], example.scale, (3, 7))
    again = memory.features(student.target, swapped)
    assert torch.equal(again, first[[1, 0, 3, 2]])
    assert torch.allclose(again, student.target(swapped.text, swapped.both())[1], atol=1e-5)
    none = FeatureCache(limit=10)
    none.features(student.target, example)
    other = example._replace(codes=example.codes.flip(1))
    assert not torch.equal(none.features(student.target, other), first)  # too little room: made anew


def test_a_model_that_is_the_target_is_perfect() -> None:
    target, _, _ = networks()
    example = _example()
    along = ModelStudent(target, target).along(example, 2)
    _, tvs = Objective(Sampling(top_k=6)).loss(along, FREE)
    assert tvs == pytest.approx([0, 0], abs=1e-6)
    cond, uncond = target(example.text, example.both())[0].chunk(2)
    assert torch.allclose(along.target, uncond + 2 * (cond - uncond), atol=1e-4)


def test_guidance_on_features_is_guidance_on_logits() -> None:
    target, _, _ = networks()
    features, scale = torch.randn(4, 6, 64), torch.tensor([[1.0], [1.7]]).expand(2, 6)
    cond, uncond = target.output(features).chunk(2)
    wanted = uncond + (cond - uncond) * scale[..., None]
    assert torch.allclose(guided_logits(target, features, scale), wanted, atol=1e-4)
