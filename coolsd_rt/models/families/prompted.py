"""The fields that families share whose prompt is text in the target's tokens: language models that generate images.

Knows sizes. Does not know tokenizers of text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from coolsd_rt.models.config import Condition, DecoderConfig, LayerConfig, Rope

PROMPT = 256  # default number of prefix positions


@dataclass(frozen=True, kw_only=True)
class TokensConfig(DecoderConfig):
    """Config of a language model: its prompt is text in its own tokens, its positions are a line.

    kv_heads: as in `LayerConfig`.
    """

    kv_heads: int | None = None

    @property
    def layer(self) -> LayerConfig:
        """Config of each layer."""
        return replace(super().layer, kv_heads=self.kv_heads, pairs="half")

    @property
    def rope(self) -> Rope:
        """RoPE angles over a line."""
        return Rope("line", self.rope_base)

    @property
    def condition(self) -> Condition:
        """The prefix is made from ids of text tokens."""
        return "ids"


@dataclass(frozen=True, kw_only=True)
class PromptedConfig(TokensConfig):
    """Config of a language model that generates images.

    text: rows of the model's text embedding table.
    grid: rows and columns of an image's codes.
    """

    text: int
    grid: int
    prefix: int = PROMPT

    @property
    def condition_size(self) -> tuple[int, int]:
        """Rows of the text embedding table, and the model's width."""
        return self.text, self.dim
