"""Drafters: the sources of draft tokens. All share one interface, so that the round and the law are the same for each.

| drafter | draft | what it keeps between rounds |
|---|---|---|
| `eagle` | a head on the target's features | features that the head has not seen yet |
| `model` | a small model of its own | its KV cache, as long as the decided tokens |
| `jacobi` | the target's own last round: no draft model at all | the distributions of that round |
| `jacobi_coupled` | the same, and a token stays where it still fits | those, and its tokens |
"""

from __future__ import annotations

from typing import Protocol

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.runtime.batch import Batch, Window
from coolsd_rt.runtime.costs import DRAFTERS, DrafterName
from coolsd_rt.runtime.drafters.eagle import EagleDrafter
from coolsd_rt.runtime.drafters.jacobi import JacobiDrafter
from coolsd_rt.runtime.drafters.model import ModelDrafter

__all__ = ["DRAFTERS", "Drafter", "DrafterName", "make_drafter"]


class Drafter(Protocol):
    """Proposes tokens. Called in this order: `prefill` and `evaluated` once, then in each round `draft` (if there are
    to be drafts), `seen`, `evaluated`, `committed`."""

    def prefill(self, features: Array) -> None:
        """The prefix has been through the target: its features [R, W, C]. The state still counts nothing."""
        ...

    def draft(self, window: Window, count: int) -> tuple[Array, Array]:
        """`count` drafts of each image: tokens int64 [M, count], and Q [M, count, V], the law that each was drawn
        from given the tokens before it, independent of them otherwise."""
        ...

    def seen(self, features: Array) -> None:
        """The target has stepped over [pending, drafts]: features [R, 1 + drafts, C]. Nothing is committed yet."""
        ...

    def evaluated(self, p: Array, q: Array, drafts: Array, accepted: Ints, num_drafts: Ints, window: Window) -> None:
        """The verdict: P [M, L' + 1, V], Q [M, L', V], drafts [M, L'], how many were accepted and how many counted,
        [M]. After the prefill, P [M, 1, V] of the first token and no drafts."""
        ...

    def committed(self, active: Host) -> None:
        """The state has moved on."""
        ...


def make_drafter(name: DrafterName, batch: Batch) -> Drafter:
    """The drafter of that name for one batch."""
    if name == "eagle":
        return EagleDrafter(batch)
    if name == "model":
        return ModelDrafter(batch)
    return JacobiDrafter(batch, coupled=name == "jacobi_coupled")
