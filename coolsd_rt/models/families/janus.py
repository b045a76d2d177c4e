"""Janus-Pro: a language model that draws with LlamaGen's tokenizer, through an embedding and a head of its own.

A prompt's text tokens, the last of them the begin of image, are the prefix; the unconditional row has padding tokens
instead of the words, and sees them. Codes reach the model through an MLP over the codebook, which is folded into a
table when a checkpoint is converted. The head is two matrices with a GELU between them.

Sizes and facts; the network is `coolsd_rt.models.decoder`. Source: Janus-Pro (Chen et al., 2025) and transformers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from coolsd_rt.models.config import Condition, DecoderConfig, LayerConfig, Rope
from coolsd_rt.models.families.family import Family
from coolsd_rt.models.layout import Layout

PROMPT = 256  # positions of a prefix where nothing else is said


@dataclass(frozen=True, kw_only=True)
class JanusConfig(DecoderConfig):
    """`text`: rows of the language model's own embedding table. `head`: width between the head's two matrices."""

    text: int
    grid: int
    head: int
    prefix: int = PROMPT
    norm_eps: float = 1e-6
    kv_heads: int | None = None

    @property
    def layer(self) -> LayerConfig:
        return replace(super().layer, kv_heads=self.kv_heads, pairs="half")

    @property
    def layout(self) -> Layout:
        return Layout(self.vocab, self.grid, self.grid)

    @property
    def rope(self) -> Rope:
        return Rope("line", self.rope_base)

    @property
    def condition(self) -> Condition:
        return "ids"

    @property
    def condition_size(self) -> tuple[int, int]:
        return self.text, self.dim

    @property
    def head_width(self) -> int:
        return self.head


_1B = {"dim": 2048, "layers": 24, "heads": 16, "ffn": 5632}
_7B = {"dim": 4096, "layers": 30, "heads": 32, "ffn": 11008}

JANUS = Family("janus-pro", JanusConfig, cell=16, sizes=(384,), models={"1B": _1B, "7B": _7B})
