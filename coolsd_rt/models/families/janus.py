"""Janus-Pro: a language model that draws with LlamaGen's tokenizer, through an embedding and a head of its own.

A prompt's text tokens, the last of them the begin of image, are the prefix; the unconditional row has padding tokens
instead of the words, and sees them. Codes reach the model through an MLP over the codebook, which is folded into a
table when a checkpoint is converted. The head is two matrices with a GELU between them.

Sizes and facts; the network is `coolsd_rt.models.decoder`. Source: Janus-Pro (Chen et al., 2025) and transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

from coolsd_rt.models.families.family import Family
from coolsd_rt.models.families.prompted import PromptedConfig
from coolsd_rt.models.layout import Layout


@dataclass(frozen=True, kw_only=True)
class JanusConfig(PromptedConfig):
    """`head`: width between the head's two matrices."""

    head: int
    norm_eps: float = 1e-6

    @property
    def layout(self) -> Layout:
        return Layout(self.vocab, self.grid, self.grid)

    @property
    def head_width(self) -> int:
        return self.head


_1B = {"dim": 2048, "layers": 24, "heads": 16, "ffn": 5632}
_7B = {"dim": 4096, "layers": 30, "heads": 32, "ffn": 11008}

JANUS = Family("janus-pro", JanusConfig, cell=16, sizes=(384,), models={"1B": _1B, "7B": _7B})
