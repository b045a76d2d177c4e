"""The demo's references as files give the figures that the demo's own tool computes in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.metrics.references import read_folder
from coolsd_rt.metrics.retrieval import RetrievalAccuracy, nearest
from tests.tools.test_emoji_tools import glyphs
from tools.emoji import data
from tools.emoji.quality import retrieve
from tools.emoji_references import write


def test_a_sweeps_retrieval_is_the_tools(tmp_path: Path) -> None:
    g = glyphs(12)
    captions = tuple(f"{'left ' * (i % 3 == 0)}disc {i}" for i in range(12))  # some may not be mirrored
    g = data.Glyphs(g.rgba, captions)
    assert write(g, tmp_path / "refs") == 12
    found = read_folder(tmp_path / "refs")
    assert found.captions == captions
    assert found.shift == data.SHIFT
    assert found.flips.tolist() == [data.may_flip(c) for c in captions]

    rng = np.random.default_rng(0)
    clean = np.roll(data.on_white(g.rgba), 1, 2)[:, :, ::-1] * 255
    noisy = (clean + 120 * rng.standard_normal(clean.shape)).clip(0, 255).astype(np.uint8)
    prompts = [captions[(i + (i > 8)) % 12] for i in range(12)]
    by_tool = retrieve(noisy, prompts, g)
    assert np.array_equal(nearest(noisy, found), by_tool.nearest)
    measure = RetrievalAccuracy(found, tmp_path)
    measure.check(data.SIDE, prompts)
    assert measure.measure(noisy, prompts).value == pytest.approx(by_tool.accuracy)
    assert 0 < by_tool.accuracy < 1


def test_captions_of_one_file_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one of each caption"):
        write(data.Glyphs(glyphs(2).rgba, ("red apple", "red-apple")), tmp_path / "refs")
    assert not (tmp_path / "refs").exists()
