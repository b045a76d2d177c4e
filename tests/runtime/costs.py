"""Round costs for tests, in rounds of plain decoding."""

from __future__ import annotations

from coolsd_rt.runtime.costs import PLACES, RoundCosts


def costs_of(verify: tuple[float, ...], images: int = 1, plain: float = 1.0, **drafts: tuple[float, ...]) -> RoundCosts:
    """The same costs at both places; without drafts named: an EAGLE head whose drafts cost 0.05 each."""
    every = drafts or {"eagle": tuple(0.05 * n for n in range(len(verify)))}
    table = tuple((name, (line,) * len(PLACES)) for name, line in every.items())
    return RoundCosts(images, (plain,) * len(PLACES), (verify,) * len(PLACES), table)  # type: ignore[arg-type]
