"""The demo's training tools, as far as they can be checked without training: data, jitter, pools, retrieval."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coolsd_rt.models.conditions import UNCONDITIONAL, UNKNOWN
from tools.emoji import data
from tools.emoji.common import learning_rate
from tools.emoji.quality import retrieve, variants
from tools.emoji.train_target import GlyphOrder, drop_words, rate


def glyphs(count: int = 6) -> data.Glyphs:
    """Discs of different places and colours on transparent ground."""
    y, x = np.mgrid[: data.SIDE, : data.SIDE]
    rgba = np.zeros((count, data.SIDE, data.SIDE, 4), np.uint8)
    rng = np.random.default_rng(0)
    for picture in rgba:
        cy, cx = rng.integers(20, 44, 2)
        disc = (y - cy) ** 2 + (x - cx) ** 2 < 150
        picture[disc] = (*rng.integers(0, 200, 3), 255)
    return data.Glyphs(rgba, tuple(f"disc {i}" for i in range(count)))


def test_jitter_leaves_white_white_and_stays_in_range() -> None:
    rgba = torch.from_numpy(glyphs().rgba)
    y = data.jitter(rgba, torch.ones(6, dtype=torch.bool), torch.Generator().manual_seed(0))
    assert y.shape == (6, 3, data.SIDE, data.SIDE)
    assert float(y.min()) >= -1
    assert float(y.max()) <= 1
    assert torch.equal(y[:, :, 0, 0], torch.ones(6, 3))


def test_a_glyph_that_may_not_be_flipped_is_not() -> None:
    assert not data.may_flip("leftwards hand")
    assert data.may_flip("red apple")
    one = data.Glyphs(glyphs().rgba[:1], ("left thing",))
    pixels, _ = variants(one)
    assert len(pixels) == (2 * data.SHIFT + 1) ** 2


def test_retrieval_finds_each_glyph_and_notices_a_wrong_one() -> None:
    g = glyphs()
    pictures = (data.on_white(g.rgba) * 255).astype(np.uint8)
    assert retrieve(np.roll(pictures, 1, 2), list(g.captions), g).accuracy == 1.0
    swapped = list(g.captions)
    swapped[0], swapped[1] = swapped[1], swapped[0]
    assert retrieve(pictures, swapped, g).correct.tolist() == [False, False, True, True, True, True]


def test_choose_drops_copies_and_keeps_order() -> None:
    g = glyphs()
    twice = data.Glyphs(np.concatenate([g.rgba, g.rgba]), (*g.captions, *(f"copy {i}" for i in range(6))))
    chosen = data.choose(twice, 12).captions
    assert len(chosen) == len({c.split()[1] for c in chosen})
    assert list(chosen) == sorted(chosen, key=twice.captions.index)


def test_epochs_show_every_glyph_once() -> None:
    order = GlyphOrder(10, torch.Generator().manual_seed(0))
    seen = torch.cat([order.next(4) for _ in range(5)])
    assert sorted(seen[:10].tolist()) == list(range(10))
    assert sorted(seen[10:].tolist()) == list(range(10))


def test_captions_are_dropped_whole_or_lose_a_word() -> None:
    words = torch.arange(10, 18).repeat(2000, 1)
    out = drop_words(words, torch.Generator().manual_seed(0))
    whole = (out == UNCONDITIONAL).all(1)
    assert 0.07 < float(whole.float().mean()) < 0.13
    lost = (out == UNKNOWN).sum(1)
    assert set(lost.tolist()) == {0, 1}
    assert not ((out == UNCONDITIONAL).any(1) & ~whole).any()


@pytest.mark.parametrize("schedule", [lambda s: learning_rate(s, 100, 1.0, 10), lambda s: rate(s, 100, 10)])
def test_learning_rates_rise_and_fall(schedule: object) -> None:
    values = [schedule(s) for s in range(100)]  # type: ignore[operator]
    assert values[0] < values[20]
    assert values[-1] < 0.1
    assert max(values) <= 1.0
