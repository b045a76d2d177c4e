"""The network and the vocabulary ids that models derived from Chameleon share: Lumina-mGPT and Anole.

Knows sizes and ids. Does not know how an image is laid out: that differs between them. Source: Chameleon (2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from coolsd_rt.models.config import Fault, LayerConfig
from coolsd_rt.models.families.prompted import PromptedConfig

FIRST_CODE, END_OF_IMAGE, BEGIN_OF_IMAGE = 4, 8196, 8197
"""Token ids of the model: code 0, the end and the begin of an image."""
CODES = 8192  # codes of Chameleon's image tokenizer
CHAMELEON_7B = {"dim": 4096, "layers": 32, "heads": 32, "ffn": 11008}


@dataclass(frozen=True, kw_only=True)
class ChameleonConfig(PromptedConfig):
    """Config of a model derived from Chameleon.

    bare: prefix tokens of a row without a prompt, the unconditional one.
    """

    bare: ClassVar[int]

    @property
    def layer(self) -> LayerConfig:
        """Config of each layer."""
        return replace(super().layer, qk_norm=True)

    def faults(self) -> Iterator[Fault]:
        """Yield the values for which no network can be built."""
        if self.prefix < self.bare:
            yield Fault("prefix", f"at least the {self.bare} tokens of a row without a prompt", str(self.prefix))
        yield from super().faults()
