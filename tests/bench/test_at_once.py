"""By default `bench` covers several images at once too, and a user's choice of a size is that size alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from coolsd_rt.bench.at_once import table as at_once_table
from coolsd_rt.bench.run import BenchConfig, bench
from coolsd_rt.bench.variants import VariantChoice
from tests.bench.benching import PROMPTS, fake_engine, use_fakes
from tests.workflows.fakes import DIMS


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_fakes(monkeypatch)
    return fake_engine(tmp_path)


def test_several_images_at_once_are_timed_as_far_as_the_engine_takes_them(engine: Path) -> None:
    """By default: single images in every variant, and what most users draw with at 2, 4 and 8, of which this engine
    takes 2."""
    choice = VariantChoice(("lossless", "jacobi", "auto"))
    found = bench(BenchConfig(engine, 1, prompts=PROMPTS, choice=choice, threads=1))
    document = found.as_dict()
    assert document["batch"] == 1
    (two,) = document["at_once"]
    assert two["batch"] == 2
    assert [way["way"] for way in two["ways"]] == ["plain", "lossless", "auto", "auto"]
    for way in two["ways"]:
        assert way["rounds"] >= (DIMS.tokens - 1 if way["way"] == "plain" else 1)
        assert (way["versus_plain"] is None) == (way["way"] == "plain")
    assert two["ways"][0]["rounds"] == 2 * (DIMS.tokens - 1)
    assert at_once_table(found.at_once).rows[0][:2] == ("2", "plain")
    alone = bench(BenchConfig(engine, 1, prompts=PROMPTS, choice=VariantChoice(("jacobi",)), threads=1))
    assert alone.at_once == ()
    chosen = bench(BenchConfig(engine, 1, 2, PROMPTS, choice=VariantChoice(("lossless",)), threads=1))
    assert (chosen.as_dict()["batch"], chosen.at_once) == (2, ())
