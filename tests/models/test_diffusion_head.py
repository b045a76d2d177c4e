"""The diffusion head: its process, its last step as the law's Gaussian, drafts judged by it, a mixture that it learns.

Power of the comparison with the law, at a false alarm of 1e-4 for each statistic, with 60,000 draws in d = 4: means
that are .035 deviations off are found with probability .98, a deviation that is 1% off with .998
(`test_the_power_is_as_stated`).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from coolsd_rt.law.continuous import LastStep, figures, log_density, verify_position
from coolsd_rt.models.continuous.config import ContinuousConfig
from coolsd_rt.models.continuous.denoising import Denoising
from coolsd_rt.models.continuous.head import DiffusionHead, Draws, Guided, start_head
from coolsd_rt.runtime.gaussians import TryNumbers
from tests.continuous import decoder

D, DRAWS, FALSE_ALARM = 4, 60_000, 1e-4


@pytest.mark.parametrize(("trained", "steps"), [(100, 25), (100, 7), (100, 100), (1000, 25), (100, 1)])
def test_the_process_keeps_the_marginals(trained: int, steps: int) -> None:
    """Given the clean token x, the state at each visited time has mean a_t x and deviation b_t: exact algebra."""
    process = Denoising(trained, steps)
    assert process.times[0] == trained
    assert len(set(process.times)) == steps
    assert min(process.times) >= 1
    mean, variance = 0.0, 1.0  # of the start, in units of x: a_T is 0
    for step, after in zip(process.before_last, process.times[1:], strict=True):
        mean = step.of_clean + step.of_state * mean
        variance = step.of_state**2 * variance + step.deviation**2
        a, b = process.table[after]
        assert mean == pytest.approx(a, abs=1e-12)
        assert variance == pytest.approx(b * b, rel=1e-9)
        assert step.deviation > 0
    assert process.table[0] == (1.0, 0.0)
    assert process.table[trained][0] == pytest.approx(0, abs=1e-12)


def test_the_clean_token_follows_from_v() -> None:
    head = decoder().head
    clean, noise = torch.randn(2, 101, D).unbind(0)
    time = torch.arange(101)
    state, v = head.noised(clean, time, noise)
    a, b = torch.tensor(head.process.table, dtype=torch.float32)[time].unsqueeze(-1).unbind(1)
    torch.testing.assert_close(a * state - b * v, clean, rtol=1e-4, atol=1e-5)


def statistics(tokens: np.ndarray, law: LastStep) -> tuple[float, float]:
    """Tail probabilities of the draws' mean (chi-square, d degrees) and of their squared noise (n d degrees)."""
    noise = law.noise(tokens)
    n, d = noise.shape
    mean = stats.chi2.sf(n * (noise.mean(0) ** 2).sum(), d)
    lower = stats.chi2.cdf((noise**2).sum(), n * d)
    return float(mean), float(2 * min(lower, 1 - lower))


def test_the_last_step_is_the_laws_gaussian() -> None:
    """Tokens drawn from one w have the mean and the deviation that `last_step` states, and the law's density."""
    head = decoder().head
    generator = torch.Generator().manual_seed(1)
    features, free = torch.randn(2, 1, 48, generator=generator).unbind(0)
    one = Guided(features, free, torch.tensor([1.7]))
    w = torch.randn(1, 5, D, generator=generator)
    draws = Draws(w[:, 0], w[:, 1:], torch.randn(1, D, generator=generator))
    mean, deviation = head.last_step(one, head.before_last(one, draws))
    law = LastStep(mean.double().numpy(), deviation.double().numpy())
    many = Guided(features.expand(DRAWS, -1), free.expand(DRAWS, -1), torch.full((DRAWS,), 1.7))
    last = torch.randn(DRAWS, D, generator=generator)
    tokens = head.draw(many, Draws(draws.start.expand(DRAWS, -1), draws.between.expand(DRAWS, -1, -1), last))
    assert min(statistics(tokens.double().numpy(), law)) > FALSE_ALARM
    np.testing.assert_allclose(tokens[:100].numpy(), law.at(last[:100].double().numpy()), atol=1e-4)
    normal = stats.multivariate_normal(law.mean[0], law.deviation[0] ** 2)
    few = tokens[:100].double().numpy()
    np.testing.assert_allclose(log_density(few[:, None], law)[:, 0], normal.logpdf(few), rtol=1e-9)


@pytest.mark.parametrize("omega", [1.0, 0.6])
def test_a_drafts_tokens_become_the_targets(omega: float) -> None:
    """Both heads from one w: the draft's tokens, kept or replaced by the law, are draws of the target's last step."""
    generator = torch.Generator().manual_seed(2)
    w = torch.randn(1, 5, D, generator=generator)
    draws = Draws(w[:, 0], w[:, 1:], w[:, 0])
    laws, drafting = [], decoder().head
    drafting.out.weight.add_(0.02 * torch.randn(D, 32, generator=generator))
    features, free = torch.randn(2, 1, 48, generator=generator).unbind(0)
    given = Guided(features, free, torch.full((1,), 1.5))
    for head in (decoder().head, drafting):
        mean, deviation = head.last_step(given, head.before_last(given, draws))
        wide = np.broadcast_to(mean.double().numpy(), (DRAWS, D)).copy()
        laws.append(LastStep(wide, np.full(DRAWS, float(deviation))))
    target, draft = laws
    rng = np.random.default_rng(3)
    drafted = draft.at(rng.standard_normal((DRAWS, D)))
    assert statistics(drafted, target.rows(np.array([0])))[0] < FALSE_ALARM  # the two differ enough to be told apart
    numbers = TryNumbers([0], [0], [0], D)
    verdict = verify_position(drafted, target, draft, omega, rng.random((DRAWS, 2)), numbers)
    assert min(statistics(verdict.tokens, target.rows(np.array([0])))) > FALSE_ALARM
    expected = float(figures(target.rows(np.array([0])), draft.rows(np.array([0])), omega).acceptance[0])
    assert 0.05 < expected < 0.95, expected
    assert verdict.accepted.mean() == pytest.approx(expected, abs=5 * (0.25 / DRAWS) ** 0.5)
    assert not verdict.tries.any()  # equal deviations need none


def test_the_power_is_as_stated() -> None:
    limit = stats.chi2.isf(FALSE_ALARM, D)
    assert stats.ncx2.sf(limit, D, DRAWS * 0.035**2) > 0.98
    degrees = DRAWS * D
    assert stats.chi2.sf(stats.chi2.isf(FALSE_ALARM / 2, degrees) / 1.01**2, degrees) > 0.998
    rng = np.random.default_rng(0)
    law = LastStep(np.zeros((1, D)), np.full(1, 0.25))
    shifted = law.at(rng.standard_normal((DRAWS, D)) + 0.035 / 2)  # .035 over four channels
    assert statistics(shifted, law)[0] < FALSE_ALARM
    wider = law.at(1.01 * rng.standard_normal((DRAWS, D)))
    assert statistics(wider, law)[1] < FALSE_ALARM


MODES = torch.tensor([[1.0, -0.5], [-1.0, 1.0]])
SHARES = (0.3, 0.7)
ALONE = torch.tensor([0.5, 0.25])


def trained_head(steps: int = 1000, rows: int = 192) -> DiffusionHead:
    """A head of two channels under two features: two points with shares .3 and .7, or one point."""
    torch.manual_seed(0)
    config = ContinuousConfig(
        channels=2, dim=4, layers=1, heads=1, ffn=4, grid=1, prefix=1, words=1, word_dim=1, head=64, last=0.1
    )
    head = DiffusionHead(config)
    start_head(head)
    optimizer = torch.optim.Adam(head.parameters(), lr=2e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, 2 * (1 - step / steps))
        clean = tokens_of(rows)
        time = torch.randint(1, 101, (rows,))
        state, v = head.noised(clean, time, torch.randn(rows, 2))
        loss = (head(state, time, features_of(rows)) - v).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval().requires_grad_(False)


def features_of(rows: int) -> Tensor:
    """The first feature in the first half of the rows, the second in the other."""
    return torch.eye(4)[torch.arange(rows) * 2 // rows]


def tokens_of(rows: int) -> Tensor:
    mixed = MODES[(torch.rand(rows // 2) < SHARES[1]).long()]
    return torch.cat([mixed, ALONE.expand(rows - len(mixed), 2)])


def test_a_tiny_head_learns_a_mixture() -> None:
    """Tokens are the points with the noise of the last step: shares within .05, means within .06, and few between.

    4,000 draws: the share has a standard error of .01. A head that answers the mean of the points puts no token near
    one, and one that knows only a feature's mixture puts half of the other's tokens there.
    """
    head, rows = trained_head(), 8000
    draws = Draws(torch.randn(rows, 2), torch.randn(rows, 24, 2), torch.randn(rows, 2))
    tokens = head.draw(Guided(features_of(rows)), draws)
    mixed, alone = tokens[: rows // 2], tokens[rows // 2 :]
    distance = torch.cdist(mixed, MODES)
    nearest = distance.argmin(1)
    assert float((nearest == 1).float().mean()) == pytest.approx(SHARES[1], abs=0.05)
    assert float((distance.amin(1) > 0.5).float().mean()) < 0.02
    for i, mode in enumerate(MODES):
        mine = mixed[(nearest == i) & (distance.amin(1) < 0.5)]
        torch.testing.assert_close(mine.mean(0), mode, rtol=0, atol=0.06)
        assert 0.09 < float((mine - mine.mean(0)).std()) < 0.14
    torch.testing.assert_close(alone.mean(0), ALONE, rtol=0, atol=0.06)
    assert 0.09 < float((alone - alone.mean(0)).std()) < 0.14
