"""What Chameleon's kin share, Lumina-mGPT and Anole: the network, and the ids of its vocabulary.

How an image is laid out is their own. Source: Chameleon (2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from coolsd_rt.models.config import Fault, LayerConfig
from coolsd_rt.models.families.prompted import PromptedConfig

FIRST_CODE, END_OF_IMAGE, BEGIN_OF_IMAGE = 4, 8196, 8197
"""Ids of the model: code 0, the end and the beginning of an image."""
CODES = 8192  # of Chameleon's image tokenizer
CHAMELEON_7B = {"dim": 4096, "layers": 32, "heads": 32, "ffn": 11008}


@dataclass(frozen=True, kw_only=True)
class ChameleonConfig(PromptedConfig):
    """`bare`: tokens of a row that has no prompt, the unconditional one."""

    bare: ClassVar[int]

    @property
    def layer(self) -> LayerConfig:
        return replace(super().layer, qk_norm=True)

    def faults(self) -> Iterator[Fault]:
        if self.prefix < self.bare:
            yield Fault("prefix", f"at least the {self.bare} tokens of a row without a prompt", str(self.prefix))
        yield from super().faults()
