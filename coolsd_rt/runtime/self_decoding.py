"""A session that can run all rounds on the device of its arrays. On a GPU the host then does not wait for any step.

Knows what a request is made of. Does not know devices. The rounds are those of `coolsd_rt.runtime.round`, with the same
numbers: a seed's image is the same either way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from coolsd_rt.arrays import Host, Ints
from coolsd_rt.law import Law
from coolsd_rt.runtime.drafters import DrafterName
from coolsd_rt.runtime.progress import OnProgress
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.statistics import Generation


@dataclass(frozen=True)
class DecodeRequest:
    """One batch. uniforms: float32 [M, N, L + 1, 3] of `uniform_table`. forced: int64 [N], -1 = free, or None."""

    law: Law
    sampling: Sampling
    uniforms: Host
    forced: Ints | None = None
    drafter: DrafterName = "eagle"
    on_progress: OnProgress | None = None
    clock: Callable[[], float] = time.perf_counter

    @property
    def drafters(self) -> tuple[DrafterName, ...]:
        """Where drafts may come from: the drafters of the costs, or the one that was named."""
        costs = self.sampling.costs
        return (self.drafter,) if costs is None else tuple(name for name, _ in costs.drafts)

    @property
    def length(self) -> int:
        """L; 0 is plain decoding."""
        return self.law.length


@runtime_checkable
class WholeEngine(Protocol):
    """An `Engine` whose sessions take requests as a whole, and that keeps what it made for a kind of request."""

    def expect(self, kinds: int) -> None:
        """So many kinds of request come in turns: keep what each needs, so that no turn makes it again."""
        ...


@runtime_checkable
class SelfDecodingSession(Protocol):
    """A `Session` that may take a request as a whole."""

    def refusal_reason(self, request: DecodeRequest) -> str:
        """Why the session cannot run the request by itself, and has to be stepped; empty if it can."""
        ...

    def decode(self, request: DecodeRequest) -> Generation:
        """All rounds of a fresh session. Raises CoolsdError: a request that it refuses."""
        ...
