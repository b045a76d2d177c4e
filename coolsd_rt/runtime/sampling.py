"""The sampling settings of a request, and its forced tokens. These are run-time values: changing them rebuilds nothing.

Knows ranges. Does not know how logits are processed (`coolsd_rt.ops.logits`) or who sent the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coolsd_rt import limits
from coolsd_rt.errors import UserError

_RANGES = {
    "temperature": limits.TEMPERATURE,
    "top_k": limits.TOP_K,
    "top_p": limits.TOP_P,
    "confidence": limits.PROBABILITY,
    "draft_confidence": limits.PROBABILITY,
    "cfg_interval": limits.CFG_INTERVAL,
}


@dataclass(frozen=True)
class Sampling:
    """How P and Q are computed from logits; the same for both. Raises UserError if a value is out of range.

    Attributes:
        cfg_scale: one number, or one per image token (`cfg_interval` can end inside a round); 1 = no guidance.
        temperature: 0 is greedy decoding.
        top_k: 0 = off.
        top_p: values of at least 1 = off.
        confidence: a round drafts only if the largest probability of P, at the last decided token, is at least this; 0
            = always. It depends on decided tokens only, so the distribution of the output does not change.
        draft_confidence: a round's drafts end before the first whose Q has no probability of at least this; 0 = never.
            Whether a draft counts depends on the drafts before it, never on the draft itself, so the distribution of
            the output does not change.
        cfg_interval: the last decode step with guidance, counted from 0 after the first token; -1 = all. Image tokens
            up to cfg_interval + 1 are guided, later ones have a scale of 1. Source: LlamaGen's cfg_interval.
    """

    cfg_scale: float | Sequence[float] = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    confidence: float = 0.0
    draft_confidence: float = 0.0
    cfg_interval: int = -1

    def __post_init__(self) -> None:
        one = np.ndim(self.cfg_scale) == 0
        scales = [limits.LOOP_CFG_SCALE.check("cfg_scale", s) for s in np.atleast_1d(np.asarray(self.cfg_scale))]
        values = {name: ends.check(name, getattr(self, name)) for name, ends in _RANGES.items()}
        for name, value in {**values, "cfg_scale": scales[0] if one else tuple(scales)}.items():
            object.__setattr__(self, name, value)  # converts NumPy numbers to Python numbers

    @property
    def guided(self) -> bool:
        """Whether any position needs the unconditional row. A session has 2 rows per image if so, otherwise 1."""
        return bool((np.asarray(self.cfg_scale) != 1).any())

    def scales(self, tokens: int) -> NDArray[np.float32]:
        """Return the CFG scale of each image token, float32 [tokens].

        Raises UserError if the list has another length.
        """
        scales = np.asarray(self.cfg_scale, np.float32)
        if scales.ndim and scales.shape != (tokens,):
            raise UserError("cfg_scale", expected=f"{tokens} values, one per image token", found=str(len(scales)))
        scales = np.broadcast_to(scales, (tokens,)).copy()
        if self.cfg_interval >= 0:
            scales[self.cfg_interval + 2 :] = 1.0
        return scales


def forced_ids(forced: Sequence[int] | NDArray[np.int64] | None, tokens: int, vocab: int) -> NDArray[np.int64] | None:
    """Return the ids int64 [tokens] of forced positions, -1 = free; None if none is forced. Raises UserError."""
    if forced is None:
        return None
    ids = np.asarray(forced, np.int64)
    if ids.shape != (tokens,) or (ids < -1).any() or (ids >= vocab).any():
        expected = f"{tokens} ids from -1 (free) to {vocab - 1}"
        raise UserError("forced tokens", expected=expected, found=str(ids.tolist()))
    return ids if (ids >= 0).any() else None
