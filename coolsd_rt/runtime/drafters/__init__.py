"""Drafters: the sources of draft tokens.

All implement one protocol, so that the round and the law are the same for each.

| drafter | source of drafts | state between rounds |
|---|---|---|
| `eagle` | an EAGLE head on the target's features | features that the head has not processed yet |
| `model` | an independent small model | its KV cache, as long as the decided tokens |
| `jacobi` | the target's last round; no draft model | the distributions of that round |
| `jacobi_coupled` | the same; keeps a token where it still fits | those distributions and their tokens |
| `jacobi_gumbel` | the same; draws each position with one noise in all rounds | those distributions, and noise |
| `ngram` | what followed the last tokens the time before; no draft model | an index of the decided tokens |
| `rows` | a head on the target's features of the row above and the last token | features of a row |
"""

from __future__ import annotations

from typing import Protocol

from coolsd_rt.arrays import Array, Host, Ints
from coolsd_rt.runtime.batch import Batch, Window
from coolsd_rt.runtime.drafter_names import DRAFTERS, DrafterName
from coolsd_rt.runtime.drafters.eagle import EagleDrafter
from coolsd_rt.runtime.drafters.jacobi import JacobiDrafter
from coolsd_rt.runtime.drafters.model import ModelDrafter
from coolsd_rt.runtime.ngrams import LOOKUP, Lookup

__all__ = ["DRAFTERS", "Drafter", "DrafterName", "make_drafter"]


class Drafter(Protocol):
    """Proposes draft tokens.

    The loop first calls `prefill` and `evaluated` once. Then, in each round, it calls `draft` (if the round has
    drafts), `seen`, `evaluated` and `committed`.
    """

    def prefill(self, features: Array) -> None:
        """Receive the features [R, S, C] of the prefix after the target's prefill, the last at position W - 1.

        The counters of the state are still where the prefix began: 0, or its first position without padding.
        """
        ...

    def draft(self, window: Window, num_drafts: Ints) -> tuple[Ints, Array, Array]:
        """Return drafts: how many of each image's count [M], tokens int64 [M, l] and their Q [M, l, V].

        num_drafts: [M], the most that may count, at least one of them above 0. The returned numbers are not larger, and
        depend on decided tokens only; l is the largest of them.

        Q_i is the distribution that draft i was drawn from, given the tokens before it; apart from that, drafts are
        independent of each other.
        """
        ...

    def seen(self, features: Array) -> None:
        """Receive the features [R, 1 + drafts, C] of the target's step over [pending, drafts].

        Nothing is committed yet.
        """
        ...

    def evaluated(self, p: Array, q: Array, drafts: Array, accepted: Ints, num_drafts: Ints, window: Window) -> None:
        """Receive the outcome of a verification, before the commit.

        p: [M, L' + 1, V]. q: [M, L', V]. drafts: [M, L']. accepted: [M], number of accepted drafts. num_drafts: [M],
        number of drafts that counted. After the prefill, p is [M, 1, V] of the first token and there are no drafts.
        """
        ...

    def committed(self, active: Host) -> None:
        """Called after the commit, when the counters of the state have advanced.

        active: bool [M], the images of the round.
        """
        ...

    def take(self, keep: Ints, other: Drafter | None = None) -> None:
        """Keep the images `keep` int64 of this drafter and, counted on from its last, of `other`, in this order.

        Called between rounds, before the batches are joined. other: a drafter of the same kind, on a batch of its own.
        """
        ...


def make_drafter(name: DrafterName, batch: Batch, lookup: Lookup = LOOKUP) -> Drafter:
    """Create the drafter `name` for one batch. lookup: for `ngram`."""
    if name == "ngram":
        from coolsd_rt.runtime.drafters.ngram import NgramDrafter  # a start does not pay for what it does not use

        return NgramDrafter(batch, lookup)
    if name == "rows":
        from coolsd_rt.runtime.drafters.rows import RowDrafter  # likewise

        return RowDrafter(batch)
    if name == "eagle":
        return EagleDrafter(batch)
    if name == "model":
        return ModelDrafter(batch)
    return JacobiDrafter(batch, coupled=name == "jacobi_coupled", noise=name == "jacobi_gumbel")
