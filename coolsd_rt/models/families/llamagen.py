"""LlamaGen: image codes in raster order behind a prefix of words (this project's demo), of a class, or of a caption.

Knows sizes and facts. Does not know the network, `coolsd_rt.models.decoder`. Source: LlamaGen (Sun et al., 2024) and
its public code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from coolsd_rt.models.config import Condition, DecoderConfig, Fault, Rope
from coolsd_rt.models.families.family import Family
from coolsd_rt.models.layout import Layout

CLASSES = 1000  # classes of ImageNet; the id behind the last is the unconditional one
CAPTION = 120  # positions of a caption


@dataclass(frozen=True, kw_only=True)
class GridConfig(DecoderConfig):
    """The fields that the three share. Every token is a cell of a square image, with RoPE by its row and column."""

    grid: int
    prefix_rope: Literal["zero", "identity"] = "zero"

    @property
    def layout(self) -> Layout:
        """The order of an image's tokens: plain rows of codes."""
        return Layout(self.vocab, self.grid, self.grid)

    @property
    def rope(self) -> Rope:
        """RoPE angles over a grid."""
        return Rope("grid", self.rope_base, self.grid, self.prefix_rope)


@dataclass(frozen=True, kw_only=True)
class LlamaGenConfig(GridConfig):
    """Config of a target with a word condition.

    words: size of its word vocabulary.
    word_dim: width of its word embeddings.
    """

    words: int
    word_dim: int

    @property
    def condition(self) -> Condition:
        """The prefix is made from word ids."""
        return "words"

    @property
    def condition_size(self) -> tuple[int, int]:
        """Words, and the width of their embeddings."""
        return self.words, self.word_dim


@dataclass(frozen=True, kw_only=True)
class ClassConfig(GridConfig):
    """Config of a class-conditional target. The prefix is one position, the class id."""

    prefix: int = 1
    classes: int = CLASSES

    @property
    def condition(self) -> Condition:
        """The prefix is made from a class id."""
        return "class"

    @property
    def condition_size(self) -> tuple[int, int]:
        """Classes and the unconditional one, and the model's width."""
        return self.classes + 1, self.dim

    def faults(self) -> Iterator[Fault]:
        """Yield the values for which no network can be built."""
        if self.prefix != 1:
            yield Fault("prefix", "1, the class", str(self.prefix))
        yield from super().faults()


@dataclass(frozen=True, kw_only=True)
class CaptionConfig(GridConfig):
    """Config of a captioned target. The prefix is a caption's T5 features, padded on the left.

    Angles do not count from the start of the caption: prefix rows have no RoPE.
    """

    prefix: int = CAPTION
    text_dim: int = 2048

    @property
    def condition(self) -> Condition:
        """The prefix is made from text features."""
        return "text"

    @property
    def condition_size(self) -> tuple[int, int]:
        """No table, and the width of the text features."""
        return 0, self.text_dim


_B, _L = {"dim": 768, "layers": 12, "heads": 12, "ffn": 2048}, {"dim": 1024, "layers": 24, "heads": 16, "ffn": 2816}
_XL = {"dim": 1280, "layers": 36, "heads": 20, "ffn": 3584}
_XXL = {"dim": 1536, "layers": 48, "heads": 24, "ffn": 4096}
_3B = {"dim": 3200, "layers": 24, "heads": 32, "ffn": 8704}

WORDS = Family("llamagen", LlamaGenConfig, cell=0, sizes=(), models={})
CLASS = Family(
    "llamagen-c2i",
    ClassConfig,
    cell=16,
    sizes=(256, 384, 512),
    models={"B": _B, "L": _L, "XL": _XL, "XXL": _XXL, "3B": _3B},
)
CAPTIONED = Family("llamagen-t2i", CaptionConfig, cell=16, sizes=(256, 512), models={"XL": _XL})
