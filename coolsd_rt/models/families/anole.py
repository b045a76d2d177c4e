"""Anole: a Chameleon that generates images, whose images are plain rows of codes without line ends or an end.

The prefix holds the first token, a prompt's text tokens, an end of turn and begin of image; the unconditional row has
only the first token and begin of image. Image codes 0 .. 8191 of the graph are the model's ids 4 .. 8195 (id - 4). The
end of image that may follow them is not generated.

Knows sizes and facts. Does not know the network, `coolsd_rt.models.decoder`. Source: Anole (Chern et al., 2024), and
LANTERN's public code, which publishes an EAGLE head for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coolsd_rt.models.families.chameleon import CHAMELEON_7B, ChameleonConfig
from coolsd_rt.models.families.family import Family
from coolsd_rt.models.layout import Layout


@dataclass(frozen=True, kw_only=True)
class AnoleConfig(ChameleonConfig):
    """Config of Anole. vocab: image codes."""

    bare: ClassVar[int] = 2  # the first token, begin of image

    @property
    def layout(self) -> Layout:
        """The order of an image's tokens: plain rows of codes."""
        return Layout(self.vocab, self.grid, self.grid)


ANOLE = Family("anole", AnoleConfig, cell=16, sizes=(512,), models={"7B": CHAMELEON_7B})
