"""Networks of continuous tokens: shapes, steps that equal the whole, and what guidance and the autoencoder compute."""

from __future__ import annotations

import pytest
import torch

from coolsd_rt.models.continuous.config import ContinuousConfig
from coolsd_rt.models.continuous.head import Draws, Guided
from tests.continuous import AUTOENCODER, TARGET, autoencoder, decoder


@pytest.mark.parametrize("sizes", [(1,) * 15, (3, 1, 4, 7), (15,)])
def test_steps_give_the_features_of_the_whole(sizes: tuple[int, ...]) -> None:
    """Any split of the tokens, after the prefix; a step of several positions is the verification of as many drafts."""
    model = decoder()
    words, tokens = torch.tensor([[3, 4, 5], [6, 0, 0]]), torch.randn(2, 16, 4)
    whole = model.hidden(words, tokens)
    assert whole.shape == (2, 16, 48)
    prefix, caches = model.condition(words), model.caches(2, 3 + 16)
    pos = torch.zeros(2, dtype=torch.int64)
    parts = [model.advance(torch.zeros(2, 3, 4), pos, prefix, caches)[:, -1:]]
    at = 0
    for size in sizes:
        parts.append(model.advance(tokens[:, at : at + size], pos + 3 + at, prefix, caches))
        at += size
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)


def test_a_feature_depends_on_earlier_tokens_and_words_alone() -> None:
    model = decoder()
    words, tokens = torch.tensor([[3, 4, 5]]), torch.randn(1, 16, 4)
    changed = tokens.clone()
    changed[:, 6] += 1
    one, two = model.hidden(words, tokens), model.hidden(words, changed)
    assert torch.equal(one[:, :7], two[:, :7])
    assert (one[:, 7:] - two[:, 7:]).abs().amin(-1).max() > 0
    other = model.hidden(torch.tensor([[3, 4, 6]]), tokens)
    assert (one - other).abs().sum(-1).min() > 1e-4


def test_a_rejected_row_is_written_over() -> None:
    """Drafts that were rejected leave nothing behind: a step from an earlier position is the whole's."""
    model = decoder()
    words, tokens = torch.tensor([[3, 4, 5]]), torch.randn(1, 16, 4)
    whole = model.hidden(words, tokens)
    prefix, caches = model.condition(words), model.caches(1, 3 + 16)
    start = torch.zeros(1, dtype=torch.int64)
    model.advance(torch.zeros(1, 3, 4), start, prefix, caches)
    model.advance(torch.randn(1, 6, 4), start + 3, prefix, caches)
    again = model.advance(tokens[:, :4], start + 3, prefix, caches)
    torch.testing.assert_close(again, whole[:, 1:5], rtol=1e-4, atol=1e-5)


def test_guidance_mixes_the_two_halves_at_the_same_state() -> None:
    """Means are linear in v, so that of the last step is mean_free + scale (mean - mean_free)."""
    head = decoder().head
    features, free, state = *torch.randn(2, 5, 48).unbind(0), torch.randn(5, 4)
    scale = torch.tensor([0.0, 1.0, 1.5, 2.0, 4.0])
    mean, deviation = head.last_step(Guided(features, free, scale), state)
    with_words, _ = head.last_step(Guided(features), state)
    bare, _ = head.last_step(Guided(free), state)
    torch.testing.assert_close(mean, bare + scale[:, None] * (with_words - bare), rtol=1e-4, atol=1e-5)
    assert deviation.tolist() == [0.25] * 5
    assert (with_words - bare).abs().max() > 1e-3


def test_the_steps_before_the_last_are_those_of_the_process() -> None:
    """Recomputed with v by the network that training calls, one step after another, both halves from one state."""
    head = decoder().head
    features, free, scale = torch.randn(2, 48), torch.randn(2, 48), torch.tensor([1.5, 3.0])
    draws = Draws(torch.randn(2, 4), torch.randn(2, 4, 4), torch.randn(2, 4))
    state = draws.start
    for k, step in enumerate(head.process.before_last):
        time = torch.full((2,), step.time)
        bare = head(state, time, free)
        v = bare + scale[:, None] * (head(state, time, features) - bare)
        clean = step.a * state - step.b * v
        state = step.of_clean * clean + step.of_state * state + step.deviation * draws.between[:, k]
    found = head.before_last(Guided(features, free, scale), draws)
    torch.testing.assert_close(found, state, rtol=1e-4, atol=1e-5)
    other = head.before_last(Guided(features, free, scale), draws._replace(last=torch.randn(2, 4)))
    assert torch.equal(found, other)  # w alone decides it


def test_rows_of_a_head_do_not_touch_each_other() -> None:
    head = decoder().head
    features = torch.randn(3, 48)
    draws = Draws(torch.randn(3, 4), torch.randn(3, 4, 4), torch.randn(3, 4))
    together = head.draw(Guided(features), draws)
    for i in range(3):
        alone = head.draw(Guided(features[i : i + 1]), Draws(*(x[i : i + 1] for x in draws)))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


def test_the_autoencoder_normalises_and_keeps_raster_order() -> None:
    model = autoencoder()
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    tokens = model.encode(x)
    assert tokens.shape == (2, 64, 4)
    torch.testing.assert_close(tokens * model.deviation + model.mean, model.raw(x).flatten(1, 2), rtol=1e-4, atol=1e-5)
    assert model.decode(tokens).shape == x.shape
    torch.testing.assert_close(model.encode(x)[:, 8 * 3 + 5], model.latents(x)[:, 3, 5])
    assert float(model.decode(100 * tokens).abs().max()) <= 1


@pytest.mark.parametrize(
    ("key", "value"), [("dim", 50), ("steps", 101), ("head", 33), ("trained", 20_000), ("channels", 4096)]
)
def test_sizes_for_which_there_is_no_network(key: str, value: int) -> None:
    config = ContinuousConfig(**{**vars(TARGET), key: value})
    assert [fault.key for fault in config.faults()] == [key]
    assert not list(TARGET.faults())
    assert not list(AUTOENCODER.faults())
