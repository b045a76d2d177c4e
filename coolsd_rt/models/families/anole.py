"""Anole: Chameleon that draws, its images plain rows of codes without line ends or an end.

A prompt's text tokens between the first token and an end of turn, then begin of image, are the prefix; the
unconditional row has the first token and begin of image alone. Image codes 0 .. 8191 of the graph are the model's ids
4 .. 8195 (id - 4). The end of image that may stand behind them is not drawn.

Sizes and facts; the network is `coolsd_rt.models.decoder`. Source: Anole (Chern et al., 2024), and LANTERN's public
code, whose EAGLE head it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coolsd_rt.models.families.chameleon import CHAMELEON_7B, ChameleonConfig
from coolsd_rt.models.families.family import Family
from coolsd_rt.models.layout import Layout


@dataclass(frozen=True, kw_only=True)
class AnoleConfig(ChameleonConfig):
    """vocab: image codes."""

    bare: ClassVar[int] = 2  # the first token, begin of image

    @property
    def layout(self) -> Layout:
        return Layout(self.vocab, self.grid, self.grid)


ANOLE = Family("anole", AnoleConfig, cell=16, sizes=(512,), models={"7B": CHAMELEON_7B})
