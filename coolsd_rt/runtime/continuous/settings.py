"""The settings of rounds of continuous tokens. Knows ranges and what fits together. Does not know models."""

from __future__ import annotations

from dataclasses import dataclass

from coolsd_rt.errors import UserError
from coolsd_rt.law.continuous import MAX_TRIES
from coolsd_rt.law.schedule import in_range
from coolsd_rt.limits import CFG_SCALE, LAW_OMEGA, TEMPERATURE


@dataclass(frozen=True)
class VectorLaw:
    """Relaxation of the draft positions 1..L, and the bound on the tries of a replacement; no omega: plain decoding.

    Where every omega is at most 1 the tokens have the target's distribution, up to the bound's fallbacks, which are
    counted and cannot happen where target and draft share a deviation.

    Raises UserError for an omega out of range, or a bound below 1.
    """

    omegas: tuple[float, ...] = ()
    bound: int = MAX_TRIES

    def __post_init__(self) -> None:
        for i, omega in enumerate(self.omegas, start=1):
            in_range(f"omega {i}", omega, LAW_OMEGA)
        if self.bound < 1:
            raise UserError("the bound on tries", expected="1 or more", found=str(self.bound))

    @property
    def length(self) -> int:
        """The draft length L."""
        return len(self.omegas)

    @property
    def lossless(self) -> bool:
        """Whether the output has the target's distribution, whatever the drafts are."""
        return all(omega <= 1 for omega in self.omegas)


@dataclass(frozen=True)
class VectorSampling:
    """How tokens are drawn.

    Attributes:
        scale: of CFG, inside the head; 1 runs no second row.
        temperature: factor of the noise of all steps but the first state's and the last step's: both are the target's,
            whatever the temperature.
        aligned: whether the target's head is given the draft's own noise of all steps but the last. Both are
            lossless; shared noise keeps more drafts.
        alone: tokens at the start of an image that the target draws without drafts ("pre-filling").

    Raises UserError for a value out of range.
    """

    scale: float = 1.0
    temperature: float = 1.0
    aligned: bool = True
    alone: int = 0

    def __post_init__(self) -> None:
        CFG_SCALE.check("the CFG scale", self.scale)
        TEMPERATURE.check("the temperature", self.temperature)
        if self.alone < 0:
            raise UserError("tokens that the target draws alone", expected="0 or more", found=str(self.alone))

    @property
    def guided(self) -> bool:
        """Whether CFG has a second row."""
        return self.scale != 1
