"""The demo's training tools, as far as they can be checked without training: data, jitter, pools, retrieval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from coolsd_rt.prompts import UNCONDITIONAL, UNKNOWN
from coolsd_rt.train.loop import Ema, optimizers, rate
from coolsd_rt.train.networks import write_weights
from tools.emoji import data
from tools.emoji.common import learning_rate
from tools.emoji.loop import Training, TrainSettings
from tools.emoji.quality import references, retrieve
from tools.emoji.train_target import GlyphOrder, drop_words


def glyphs(count: int = 6) -> data.Glyphs:
    """Discs of different places and colours on transparent ground."""
    y, x = np.mgrid[: data.SIDE, : data.SIDE]
    rgba = np.zeros((count, data.SIDE, data.SIDE, 4), np.uint8)
    rng = np.random.default_rng(0)
    for image in rgba:
        cy, cx = rng.integers(20, 44, 2)
        disc = (y - cy) ** 2 + (x - cx) ** 2 < 150
        image[disc] = (*rng.integers(0, 200, 3), 255)
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
    two = data.Glyphs(glyphs().rgba[:2], ("left thing", "red apple"))
    assert references(two).flips.tolist() == [False, True]


def test_retrieval_finds_each_glyph_and_notices_a_wrong_one() -> None:
    g = glyphs()
    images = (data.on_white(g.rgba) * 255).astype(np.uint8)
    assert retrieve(np.roll(images, 1, 2), list(g.captions), g).accuracy == 1.0
    swapped = list(g.captions)
    swapped[0], swapped[1] = swapped[1], swapped[0]
    assert retrieve(images, swapped, g).correct.tolist() == [False, False, True, True, True, True]


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


def _run(folder: Path, name: str, steps: int) -> nn.Linear:
    """A little model on its way to the identity; batches depend on the step alone."""
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    run = Training(
        name,
        model,
        optimizers(model, [model.weight], 0.05, 0.0),
        Ema(model, 0.9),
        TrainSettings(steps, batch=16, lr=0.05, save_every=10),
        folder,
    )
    run.resume()
    for step in run.remaining():
        if step == 25 and name == "killed" and not (folder / "once").exists():
            (folder / "once").touch()
            raise KeyboardInterrupt
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loss = (model(x) - x).square().mean()
        run.update(loss, [loss.item()], "loss")
        if run.due:
            run.save()
    return run.ema.model


def test_a_killed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = _run(tmp_path, "whole", 60)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, "killed", 60)
    resumed = _run(tmp_path, "killed", 60)
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)
    begin = _run(tmp_path, "begin", 1)
    distance = [float((w.weight - torch.eye(4)).norm()) for w in (begin, whole)]
    assert distance[1] < 0.8 * distance[0]  # it learns at all
    assert "resumes at step 20" in (tmp_path / "killed.log").read_text()


def test_the_same_weights_are_the_same_file(tmp_path: Path) -> None:
    """A build is keyed by its files' hashes: training the same model again must not look like another."""
    model = nn.Linear(3, 3)
    files = [tmp_path / f"{i}.safetensors" for i in range(4)]
    for file in files:
        write_weights(file, model, {"b": 1, "a": (1, 2)})
    assert len({file.read_bytes() for file in files}) == 1
