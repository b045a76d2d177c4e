"""Seconds of a round by its number of drafts: values only. Does not know who measured them, nor where they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, get_args

from coolsd_rt.errors import CoolsdError

DrafterName = Literal["eagle", "model", "jacobi", "jacobi_coupled"]
DRAFTERS: tuple[DrafterName, ...] = get_args(DrafterName)
JACOBI: tuple[DrafterName, ...] = ("jacobi", "jacobi_coupled")
"""Drafters without a model: their drafts take no step."""

PLACES = (0.25, 0.75)  # of the image: a step's cost grows with the cache that it reads
PlaceSeconds = tuple[tuple[float, ...], ...]  # [places][L + 1]


@dataclass(frozen=True)
class RoundCosts:
    """Seconds of one round of a batch of `images` images on one machine, at two places in the image (`PLACES`).

    plain: for each place, seconds of a round of plain decoding. verify: for each place, [L + 1] seconds of a round by
    the number of drafts that it judges, the making of drafts excluded. drafts: for each drafter and place, [L + 1]
    seconds of making that many drafts; entry 0 is 0. single_steps: numbers of drafts that an EAGLE head makes faster in
    single steps than in its fused graph.

    Raises CoolsdError: lists of different lengths, or seconds that are not positive.
    """

    images: int
    plain: tuple[float, ...]
    verify: PlaceSeconds
    drafts: tuple[tuple[DrafterName, PlaceSeconds], ...]
    single_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        tables = [self.verify, *(seconds for _, seconds in self.drafts)]
        lists = [seconds for table in tables for seconds in table]
        fits = {len(table) for table in tables} == {len(PLACES)} and len({len(seconds) for seconds in lists}) == 1
        fits = fits and len(self.plain) == len(PLACES) and all(map(all, (self.plain, *self.verify)))
        lists.append(self.plain)
        if not self.drafts or not fits or any(not isfinite(s) or s < 0 for seconds in lists for s in seconds):
            raise CoolsdError("round costs", expected="a list of seconds for each drafter", found=str(self.as_dict()))

    @property
    def length(self) -> int:
        """L, the most drafts of a round."""
        return len(self.verify[0]) - 1

    def as_dict(self) -> dict[str, Any]:
        """JSON data; `of` takes it back."""
        return {
            "images": self.images,
            "places": list(PLACES),
            "plain": list(self.plain),
            "verify": [list(seconds) for seconds in self.verify],
            "drafts": {name: [list(seconds) for seconds in table] for name, table in self.drafts},
            "single_steps": list(self.single_steps),
        }

    @staticmethod
    def of(data: Mapping[str, Any]) -> RoundCosts:
        """Read JSON data. Raises CoolsdError: not what `as_dict` gives."""
        try:
            drafts = tuple((name, _table(seconds)) for name, seconds in data["drafts"].items())
            if data["places"] != list(PLACES) or any(name not in DRAFTERS for name, _ in drafts):
                raise ValueError("an unknown drafter or place")
            single = tuple(map(int, data["single_steps"]))
            (plain,) = _table([data["plain"]])
            return RoundCosts(int(data["images"]), plain, _table(data["verify"]), drafts, single)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CoolsdError("round costs", expected="a record of coolsd-rt", found=str(error)) from error


def _table(rows: Any) -> PlaceSeconds:
    return tuple(tuple(map(float, row)) for row in rows)
