"""The shipped demo: whole, small enough, and one with its prompts, its vocabulary and its spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from coolsd_rt.prompts import WordVocabulary
from coolsd_rt.spec import load_spec
from coolsd_rt.store import check_safetensors

ROOT = Path(__file__).resolve().parents[2]
EMOJI = ROOT / "pipelines" / "emoji"


def test_the_spec_is_valid() -> None:
    assert load_spec(ROOT / "pipelines" / "emoji.yaml").spec.name == "emoji"


def test_weights_are_small_and_free_of_pickle() -> None:
    weights = list(EMOJI.glob("*.safetensors"))
    assert {w.name for w in weights} == {"draft.safetensors", "target.safetensors", "vq.safetensors"}
    assert sum(w.stat().st_size for w in weights) < 25e6
    for path in weights:
        assert "config" in check_safetensors(path).metadata


def test_every_trained_caption_is_listed_and_readable() -> None:
    vocabulary = WordVocabulary.load(EMOJI / "vocab.json")
    prompts = (EMOJI / "prompts.txt").read_text(encoding="utf-8").splitlines()
    assert len(prompts) == len(set(prompts)) >= 500
    assert not [p for p in prompts if vocabulary.encode(p).unknown]


@pytest.mark.parametrize("word", ["data", "licence", "Training", "entropy", "TV"])
def test_the_model_card_says(word: str) -> None:
    assert word.lower() in (EMOJI / "README.md").read_text(encoding="utf-8").lower()
