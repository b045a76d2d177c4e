"""Both ends of every number that a user or a file can give, stated once and used at every entrance.

Pure data. Does not know who asks: the spec's models, the command line, manifests and Python callers all read it here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


# Prompts and the files of foreign models (text encoders, CLIP, reward models).
PROMPT_CHARACTERS = Range(1, 10_000)
"""Longer text is no prompt, and the cleaning of captions takes quadratic time."""
LABEL_BYTES = 16 << 20
PROMPT_FILE_BYTES = 64 << 20
TOKENIZER_BYTES = 32 << 20
CONFIG_BYTES = 1 << 20
INDEX_BYTES = 16 << 20
SHARDS = Range(1, 1024)
LAYERS = Range(1, 1024)
HEADS = Range(1, 4096)
WIDTH = Range(1, 1 << 18)
VOCABULARY = Range(1, 1 << 22)
FEATURE_TOKENS = Range(1, 4096)
"""Of the file of caption features, and so of `condition.length`."""
