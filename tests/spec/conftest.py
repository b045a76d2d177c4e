"""A spec in a folder of its own, with the files it names (empty ones: a spec does not open them)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOOD = """\
version: 1
name: toy
target: {model: llamagen, weights: w/target.safetensors}
draft: {model: eagle, weights: w/draft.safetensors, length: 5}
image: {tokenizer: vq, weights: w/vq.safetensors}
condition: {kind: words, vocab: w/vocab.json}
schedule: {kind: exponential, delta: 1.1}
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(text) or write(old, new): the good spec with a piece replaced. Returns its path."""
    (tmp_path / "w").mkdir()
    for name in ("target.safetensors", "draft.safetensors", "vq.safetensors", "vocab.json"):
        (tmp_path / "w" / name).touch()

    def make(*pairs: str) -> Path:
        text = GOOD if len(pairs) != 1 else pairs[0]
        for old, new in zip(pairs[::2], pairs[1::2], strict=False):
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "toy.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return make
