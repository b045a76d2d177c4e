"""The config of a row head, and how far ahead its rounds draft. Needs no torch, as `config`.

Knows sizes and columns. Does not know tensors, files, or how drafts are verified. Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coolsd_rt.limits import TOKENS
from coolsd_rt.models.config import Fault

AHEAD = 5
"""Tokens of a row that are also guessed along it, unless asked otherwise: k_h of SSD (arXiv 2606.20543)."""


@dataclass(frozen=True)
class RowConfig:
    """Sizes of a row head; dim is the target's.

    row: tokens from a token to the one below it, a line end included: `Layout.stride` of the target.
    ahead: tokens behind the last decided one that are guessed along the row too (k_h); those after them are guessed
    from the row above alone.
    """

    dim: int
    row: int
    ffn: int
    ahead: int = AHEAD
    norm_eps: float = 1e-5

    def faults(self) -> Iterator[Fault]:
        """Yield the values for which no network can be built."""
        if self.row > TOKENS.high:
            yield Fault("row", f"at most {int(TOKENS.high)} tokens", str(self.row))
        if self.ahead > self.row:
            yield Fault("ahead", f"at most the row's {self.row} tokens", str(self.ahead))
