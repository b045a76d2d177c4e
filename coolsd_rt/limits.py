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


CONFIG_LIST = 16
"""Entries of a list in such a config: halvings of an image, which nobody has more than six of."""

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
    "res_blocks": Range(1, 64),
    "norm_groups": Range(1, 65_536),
}
"""Fields of the config in a weights file's header. The largest published network is a tenth of any of these, and no
product of two overflows."""
