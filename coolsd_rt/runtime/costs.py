"""Seconds of a round by its number of drafts: values only. Does not know who measured them, nor where they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, get_args

from coolsd_rt.errors import CoolsdError

DrafterName = Literal["eagle", "model", "jacobi", "jacobi_coupled"]
DRAFTERS: tuple[DrafterName, ...] = get_args(DrafterName)


@dataclass(frozen=True)
class RoundCosts:
    """Seconds of one round of a batch of `images` images, on one machine.

    verify: [L + 1] seconds of a round by the number of drafts that it judges, the making of drafts excluded.
    drafts: for each drafter, [L + 1] seconds of making that many drafts; entry 0 is 0.
    single_steps: numbers of drafts that an EAGLE head makes faster in single steps than in its fused graph.

    Raises CoolsdError: lists of different lengths, or seconds that are not positive.
    """

    images: int
    verify: tuple[float, ...]
    drafts: tuple[tuple[DrafterName, tuple[float, ...]], ...]
    single_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        lists = [self.verify, *(seconds for _, seconds in self.drafts)]
        fits = len({len(seconds) for seconds in lists}) == 1 and all(self.verify)
        if not self.drafts or not fits or any(not isfinite(s) or s < 0 for seconds in lists for s in seconds):
            raise CoolsdError("round costs", expected="a list of seconds for each drafter", found=str(self.as_dict()))

    @property
    def length(self) -> int:
        """L, the most drafts of a round."""
        return len(self.verify) - 1

    def as_dict(self) -> dict[str, Any]:
        """JSON data; `of` takes it back."""
        return {
            "images": self.images,
            "verify": list(self.verify),
            "drafts": {name: list(seconds) for name, seconds in self.drafts},
            "single_steps": list(self.single_steps),
        }

    @staticmethod
    def of(data: Mapping[str, Any]) -> RoundCosts:
        """Read JSON data. Raises CoolsdError: not what `as_dict` gives."""
        try:
            drafts = tuple((name, tuple(map(float, seconds))) for name, seconds in data["drafts"].items())
            if any(name not in DRAFTERS for name, _ in drafts):
                raise ValueError("an unknown drafter")
            verify, single = tuple(map(float, data["verify"])), tuple(map(int, data["single_steps"]))
            return RoundCosts(int(data["images"]), verify, drafts, single)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CoolsdError("round costs", expected="a record of coolsd-rt", found=str(error)) from error
