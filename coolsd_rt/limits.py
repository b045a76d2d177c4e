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


SPEC_BYTES = 4 << 20
PROMPTS_BYTES = 64 << 20
LINE_CHARACTERS = 100_000
RESULT_BYTES = 256 << 20
"""Most bytes of a spec's or a sweep's file, of a file of prompts, and of a file of results that is read as a whole;
and most characters of one prompt in a file."""


# Files of an engine: what its manifest, vocabulary and tables may say. Beyond any published model, and small enough
# that nothing is made of a number before it is refused.
DIMS = {
    "vocab": Range(1, 1 << 20),
    "dim": Range(1, 1 << 16),
    "layers": Range(1, 512),
    "heads": Range(1, 1024),
    "head_dim": Range(1, 4096),
    "prefix": Range(1, 1 << 16),
    "tokens": Range(1, 1 << 16),
    "draft_layers": Range(0, 512),
    "draft_heads": Range(0, 1024),
    "draft_head_dim": Range(0, 4096),
    "draft_dim": Range(0, 1 << 16),
    "padded": Range(0, 1),
    "condition_dim": Range(0, 1 << 16),
}
"""Of `ModelDims`, by its fields."""
BUILT_LENGTH = Range(1, 1024)
"""The draft length that an engine was built for."""
SIDE = Range(1, 1 << 14)
"""Pixels along one side of a picture."""
CACHE_NUMBERS = Range(0, 1 << 34)
"""Numbers in the KV caches of one row, target or draft."""
TABLE_NUMBERS = Range(1, 1 << 33)
"""Numbers in one table: an embedding, a head, the prefix of a row, all distributions of a draft."""
MANIFEST_BYTES = 16 << 20
VOCABULARY_BYTES = 64 << 20
VOCABULARY_WORDS = Range(3, 1 << 20)
WORD_CHARACTERS = Range(1, 256)
NEIGHBOURS_BYTES = 4 << 30
BATCH_BYTES = 8 << 30
"""One array of a measurement that is read back."""
PATH_CHARACTERS = 1024
"""Of the name of a file in a spec."""
