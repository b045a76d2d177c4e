"""Janus-Pro: a language model that generates codes of LlamaGen's tokenizer.

It has a separate embedding and a separate head for codes. The prefix holds a prompt's text tokens, the last of which is
begin of image; the unconditional row has padding tokens in place of the words, and attends to them. Codes reach the
model through an MLP over the codebook, which is folded into a table when a checkpoint is converted. The head is two
matrices with a GELU between them.

Knows sizes and facts. Does not know the network, `coolsd_rt.models.decoder`. Source: Janus-Pro (Chen et al., 2025) and
transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

from coolsd_rt.models.families.family import Family
from coolsd_rt.models.families.prompted import PromptedConfig
from coolsd_rt.models.layout import Layout


@dataclass(frozen=True, kw_only=True)
class JanusConfig(PromptedConfig):
    """Config of Janus-Pro. head: width between the head's two matrices."""

    head: int
    norm_eps: float = 1e-6

    @property
    def layout(self) -> Layout:
        """The order of an image's tokens: plain rows of codes."""
        return Layout(self.vocab, self.grid, self.grid)

    @property
    def head_width(self) -> int:
        """Width between the two matrices of the head."""
        return self.head


_1B = {"dim": 2048, "layers": 24, "heads": 16, "ffn": 5632}
_7B = {"dim": 4096, "layers": 30, "heads": 32, "ffn": 11008}

JANUS = Family("janus-pro", JanusConfig, cell=16, sizes=(384,), models={"1B": _1B, "7B": _7B})
