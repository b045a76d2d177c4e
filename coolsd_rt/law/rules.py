"""The settings that decide whether a draft token is accepted and which token replaces it.

Knows these settings and which of them can be combined. Does not know P, Q, or where the numbers were written down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from coolsd_rt.errors import UserError
from coolsd_rt.law.residual import RESAMPLERS, Resampler
from coolsd_rt.law.schedule import in_range, one_of
from coolsd_rt.law.tolerance import Tolerance
from coolsd_rt.limits import LAW_OMEGA, REFINEMENTS

Rule = Literal["ratio", "lantern", "lantern_pp", "per_position", "synthetic"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True)
class Law:
    """Acceptance rule, omegas and resampler of a round. The draft length is the number of omegas; 0 is plain decoding.

    omegas: relaxation of draft positions 1..L, each in `limits.LAW_OMEGA` (1 = lossless, 0 = never accept).
    resampler: distribution used after a rejection, `coolsd_rt.law.residual`.
    tolerance: LANTERN's relaxation; it takes the place of omega, so every omega has to be 1.
    rates: of the rule `synthetic`: a fixed acceptance rate for each position, independent of P and Q. For timing, never
    for images.
    refinements: of the rule `per_position`: how often the target judges a round's drafts, each by itself, before all of
    them become tokens (`coolsd_rt.runtime.position_round`).

    Raises UserError if a value is out of range or the settings cannot be combined.
    """

    omegas: tuple[float, ...]
    resampler: Resampler = "optimal"
    tolerance: Tolerance | None = None
    rates: tuple[float, ...] | None = None
    refinements: int | None = None

    def __post_init__(self) -> None:
        for i, omega in enumerate(self.omegas, start=1):
            in_range(f"omega {i}", omega, LAW_OMEGA)
        one_of("resampler", self.resampler, RESAMPLERS)
        if self.rule != "ratio" and set(self.omegas) - {1.0}:
            found = ", ".join(f"{omega:g}" for omega in self.omegas)
            raise UserError(f"the rule {self.rule}", expected="every omega 1 (schedule none)", found=found)
        if self.resampler == "lantern" and self.tolerance is None:
            expected = "the rule lantern or lantern_pp"
            raise UserError("the resampler lantern", expected=expected, found=f"the rule {self.rule}")
        if self.resampler == "lantern" and self.tolerance is not None:
            self._check_columns(self.tolerance)
        if self.rates is not None:
            self._check_rates(self.rates)
        if self.refinements is not None:
            self._check_refinements(self.refinements)

    def _check_columns(self, tolerance: Tolerance) -> None:
        """Raise UserError if the neighbour table is too narrow for LANTERN's residual.

        It reads one column more than may lend.
        """
        if tolerance.near.shape[1] < tolerance.columns:
            expected = f"{tolerance.columns} nearest codes of each code, for {tolerance.lending} that may lend"
            raise UserError("the resampler lantern", expected=expected, found=str(tolerance.near.shape[1]))

    def _check_rates(self, rates: tuple[float, ...]) -> None:
        if self.tolerance is not None or self.resampler != "target":
            raise UserError("the rule synthetic", expected="the resampler target, no neighbours", found=self.resampler)
        if len(rates) != self.length:
            expected = f"{self.length}, one a draft position"
            raise UserError("synthetic rates", expected=expected, found=str(len(rates)))
        for i, rate in enumerate(rates, start=1):
            if not 0 <= rate <= 1:
                raise UserError(f"synthetic rate {i}", expected="a probability, from 0 to 1", found=str(rate))

    def _check_refinements(self, count: int) -> None:
        REFINEMENTS.check("refinements", count)
        if self.tolerance is not None or self.rates is not None or self.resampler not in ("optimal", "residual"):
            expected = "the resampler optimal or residual, the same here, and no other rule"
            raise UserError("the rule per_position", expected=expected, found=self.resampler)

    @property
    def passes(self) -> int:
        """Passes in which a round judges its drafts."""
        return 1 if self.refinements is None else max(1, self.refinements)

    @property
    def rule(self) -> Rule:
        """The acceptance rule; "ratio" is `f = min(1, omega * P / Q)`."""
        if self.refinements is not None:
            return "per_position"
        if self.rates is not None:
            return "synthetic"
        return "ratio" if self.tolerance is None else self.tolerance.kind

    @property
    def lossless(self) -> bool:
        """Whether the output has the target's distribution, whatever the drafts are."""
        exact = self.rule == "ratio" and self.resampler in ("optimal", "residual")
        return exact and all(omega == 1.0 for omega in self.omegas)

    @property
    def length(self) -> int:
        """The draft length L."""
        return len(self.omegas)

    def first(self, length: int) -> Law:
        """Return the law of a round of the first `length` drafts; of all if there are fewer."""
        rates = None if self.rates is None else self.rates[:length]
        return replace(self, omegas=self.omegas[:length], rates=rates)
