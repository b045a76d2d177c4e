"""Sessions of continuous tokens on eager PyTorch: the networks' own laws, in steps of any width and with rollback."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from coolsd_rt.arrays import Ints
from coolsd_rt.backends.torch.continuous import open_vectors
from coolsd_rt.errors import UserError
from coolsd_rt.models.continuous.decoder import ContinuousDecoder
from coolsd_rt.models.continuous.head import Draws, Guided
from coolsd_rt.prompts import UNCONDITIONAL
from coolsd_rt.runtime.continuous import VectorLaw, VectorLoop, VectorSampling, draw_vectors
from coolsd_rt.runtime.gaussians import step_numbers
from tests.continuous import TARGET, decoder

WORDS = torch.tensor([[3, 4, 5], [6, 7, 0]])
GUIDED = VectorSampling(scale=1.5)
LOSSLESS = VectorLaw((1.0,) * 3)


def near(distance: float) -> ContinuousDecoder:
    """A draft whose head is a little off."""
    other = decoder()
    rng = torch.Generator().manual_seed(0)
    other.head.out.weight.add_(distance * torch.randn(other.head.out.weight.shape, generator=rng))
    return other


def free(sampling: VectorSampling) -> torch.Tensor | None:
    return torch.full_like(WORDS, UNCONDITIONAL) if sampling.guided else None


@pytest.mark.parametrize("sampling", [VectorSampling(), replace(GUIDED, temperature=0.7)])
def test_plain_decoding_is_the_networks_sampler(sampling: VectorSampling) -> None:
    """Token by token as teacher forcing has it: the features of the drawn image give it again."""
    model, seeds = decoder(), [5, 6]
    made = draw_vectors(open_vectors(model, None, WORDS, free(sampling), 0), VectorLaw(), sampling, seeds)
    tokens, rows = torch.from_numpy(made.tokens), WORDS
    if sampling.guided:
        rows, tokens = torch.cat([WORDS, torch.full_like(WORDS, UNCONDITIONAL)]), tokens.repeat(2, 1, 1)
    features = model.hidden(rows, tokens)
    for i in (0, 1, 7, 15):
        table = torch.from_numpy(step_numbers(seeds, [i, i], [0, 0], TARGET.steps, TARGET.channels)).float()
        draws = Draws(table[:, 0], sampling.temperature * table[:, 1:-1], table[:, -1])
        at = features[:, i]
        given = Guided(at[:2], at[2:], torch.full((2,), sampling.scale)) if sampling.guided else Guided(at)
        torch.testing.assert_close(model.head.draw(given, draws), tokens[:2, i], rtol=1e-3, atol=1e-3)
    assert made.statistics.rounds.tolist() == [15, 15]


@pytest.mark.parametrize("sampling", [VectorSampling(), GUIDED])
def test_the_target_as_its_own_draft_keeps_all(sampling: VectorSampling) -> None:
    session = open_vectors(decoder(), decoder(), WORDS, free(sampling), 3)
    made = draw_vectors(session, LOSSLESS, sampling, [1, 2], measure=True)
    assert made.statistics.rounds.tolist() == [4, 4]  # a token, three rounds of four, and three behind them
    assert made.expected_acceptance == pytest.approx(1, abs=1e-4)


def test_a_further_draft_is_kept_less() -> None:
    found = []
    for distance in (0.002, 0.01, 0.05):
        session = open_vectors(decoder(), near(distance), WORDS, free(GUIDED), 3)
        found.append(draw_vectors(session, LOSSLESS, GUIDED, [1, 2], measure=True).expected_acceptance)
    assert 1 > found[0] > found[1] > found[2] > 0


def test_what_is_judged_is_what_single_steps_give() -> None:
    """P of every judged position, after drafts that were rejected before it, is that of teacher forcing."""
    model = decoder()
    loop = VectorLoop(open_vectors(model, near(0.02), WORDS, free(GUIDED), 3), LOSSLESS, GUIDED, [1, 2])
    loop.prefill()
    seen: list[tuple[int, int, Ints, np.ndarray]] = []
    while loop.state.remaining.any():
        begin = loop.state.decided.copy()
        record = loop.round()
        for i, p in enumerate(record.target):
            for n, m in enumerate(record.there.tolist()):
                if record.accepted[m] >= i and record.num_drafts[m] > i:  # behind tokens that stayed
                    seen.append((m, int(begin[m]) + i, np.array([i]), p.mean[n]))
    rows = torch.cat([WORDS, torch.full_like(WORDS, UNCONDITIONAL)])
    features = model.hidden(rows, torch.from_numpy(loop.state.codes).repeat(2, 1, 1))
    for m, token, offset, mean in seen:
        table = step_numbers([1 + m], [token], offset.tolist(), TARGET.steps, TARGET.channels)
        found = torch.from_numpy(table).float()
        given = Guided(features[m : m + 1, token], features[m + 2 : m + 3, token], torch.tensor([1.5]))
        draws = Draws(found[:, 0], found[:, 1:-1], found[:, -1])
        wanted, _ = model.head.last_step(given, model.head.before_last(given, draws))
        np.testing.assert_allclose(mean, wanted[0].numpy(), rtol=1e-3, atol=1e-3)
    assert len(seen) > 10


@pytest.mark.parametrize("change", [{"channels": 6}, {"grid": 5}, {"trained": 50}])
def test_a_draft_of_other_tokens_is_one_line(change: dict[str, int]) -> None:
    other = ContinuousDecoder(replace(TARGET, **change))  # type: ignore[arg-type]
    ((name, value),) = change.items()
    with pytest.raises(
        UserError, match=f"the draft's {name}: expected the target's {getattr(TARGET, name)}, found {value}"
    ):
        open_vectors(decoder(), other, WORDS, None, 3)


def test_a_draft_of_other_steps_is_one_line() -> None:
    other = decoder()
    other.head.set_steps(3)
    with pytest.raises(UserError, match="the draft's denoising steps: expected the target's 5, found 3"):
        open_vectors(decoder(), other, WORDS, None, 3)
