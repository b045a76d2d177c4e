"""What families share whose prompt is text in the target's own tokens: language models that draw."""

from __future__ import annotations

from dataclasses import dataclass, replace

from coolsd_rt.models.config import Condition, DecoderConfig, LayerConfig, Rope

PROMPT = 256  # positions of a prefix where nothing else is said


@dataclass(frozen=True, kw_only=True)
class PromptedConfig(DecoderConfig):
    """`text`: rows of the model's own embedding table. `grid`: rows and columns of an image's codes."""

    text: int
    grid: int
    prefix: int = PROMPT
    kv_heads: int | None = None

    @property
    def layer(self) -> LayerConfig:
        return replace(super().layer, kv_heads=self.kv_heads, pairs="half")

    @property
    def rope(self) -> Rope:
        return Rope("line", self.rope_base)

    @property
    def condition(self) -> Condition:
        return "ids"

    @property
    def condition_size(self) -> tuple[int, int]:
        return self.text, self.dim
