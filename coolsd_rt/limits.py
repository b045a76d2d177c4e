"""Both ends of every number that a user or a file can give, stated once and used at every entrance.

Pure data. Does not know who asks: the spec's models, the command line, manifests and Python callers all read it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


OMEGA = Range(0.0, 1e6)
"""What a schedule is given: delta, beta, floor, an omega of a custom list, a factor of lantern_pp."""

LAW_OMEGA = Range(0.0, 1e12)
"""An omega of a law. A schedule with the mean delta has a first omega of up to L * delta; float32 holds far more."""

CONFIDENCE = Range(0.5, 0.999)
"""Of a one-sided bound: at a half there is no margin, beyond the other end the tails are not known well enough."""

DECAY = Range(0.0, 1e6)
"""nu of a schedule; above 800 or so every position after the first has an omega of 0, or 1 under `excess`."""
CONFIG: Mapping[str, Range] = {
    "vocab": Range(1, 1 << 20),
    "dim": Range(1, 65_536),
    "layers": Range(1, 1024),
    "heads": Range(1, 4096),
    "kv_heads": Range(1, 4096),
    "ffn": Range(1, 1 << 20),
    "prefix": Range(1, 65_536),
    "grid": Range(1, 256),
    "words": Range(1, 1 << 20),
    "word_dim": Range(1, 65_536),
    "classes": Range(1, 1 << 20),
    "text": Range(1, 1 << 20),
    "text_dim": Range(1, 65_536),
    "head": Range(1, 1 << 20),
    "norm_eps": Range(1e-30, 1.0),
    "rope_base": Range(1.0, 1e12),
    "codebook_size": Range(1, 1 << 20),
    "codebook_dim": Range(1, 65_536),
    "channels": Range(1, 65_536),
    "multipliers": Range(1, 1024),
    "z_channels": Range(1, 65_536),
    "res_blocks": Range(1, 1024),
    "norm_groups": Range(1, 65_536),
}
"""Fields of the config in a weights file's header. The largest published network is a tenth of any of these, and no
product of two overflows."""
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
