"""Protocols of sessions that run all rounds on the device of their arrays, so that the host waits for no step of a GPU.

Knows the values of a request. Does not know devices. The rounds are those of `coolsd_rt.runtime.round`, with the same
random numbers: a seed gives the same image on either loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeGuard, runtime_checkable

from coolsd_rt.arrays import Host, Ints
from coolsd_rt.errors import UserError
from coolsd_rt.law import Law
from coolsd_rt.runtime.drafters import DrafterName
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.ngrams import LOOKUP, Lookup
from coolsd_rt.runtime.progress import OnProgress
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.statistics import Generation

if TYPE_CHECKING:
    from coolsd_rt.runtime.trees import TreeShape

Loop = Literal["auto", "host", "device"]
"""Which loop to run. auto: the session's own loop if it supports the request, else the host's."""


@dataclass(frozen=True)
class Extent:
    """From where to where the sequences of a batch run. An image has all W positions and N tokens; a text need not.

    ends: tokens that complete a text. limits: the most tokens of each text, 1 to N; None: N. first: position of the
    prefix before which no row has anything but padding; the prefix is run from there on.
    """

    ends: tuple[int, ...] = ()
    limits: tuple[int, ...] | None = None
    first: int = 0


WHOLE = Extent()
"""The extent of images."""


@dataclass(frozen=True)
class DecodeRequest:
    """A request for one batch.

    uniforms: float32 [M, N, L + 1, 3] of `uniform_table`; [M, N, K + 1, 3] with a tree of K nodes. forced: int64 [N],
    -1 = free, or None. lookup: for the drafter `ngram`. tree: the shape of a round's drafts, with one omega of the law
    for each depth; None: a chain.
    """

    law: Law
    sampling: Sampling
    uniforms: Host
    forced: Ints | None = None
    drafter: DrafterName = "eagle"
    on_progress: OnProgress | None = None
    clock: Callable[[], float] = time.perf_counter
    extent: Extent = WHOLE
    lookup: Lookup = LOOKUP
    tree: TreeShape | None = None

    @property
    def length(self) -> int:
        """The draft length L, or the depth of the tree; 0 is plain decoding."""
        return self.law.length


@runtime_checkable
class WholeEngine(Protocol):
    """An `Engine` whose sessions run requests by themselves, and that keeps compiled programs."""

    def expect(self, kinds: int) -> None:
        """Announce `kinds` alternating kinds of request, so that a program is kept for each of them."""
        ...


@runtime_checkable
class SelfDecodingSession(Protocol):
    """A `Session` that may run a request by itself."""

    def refusal_reason(self, request: DecodeRequest) -> str:
        """Return the reason why the session cannot run the request by itself and has to be stepped; empty if it can."""
        ...

    def decode(self, request: DecodeRequest) -> Generation:
        """Run all rounds on a fresh session. Raises CoolsdError if the session refuses the request."""
        ...


def decodes_itself(session: Session, request: DecodeRequest, loop: Loop) -> TypeGuard[SelfDecodingSession]:
    """Whether the session runs the request by itself. Raises UserError if it has to (`loop="device"`) and cannot."""
    if loop == "host":
        return False
    own = isinstance(session, SelfDecodingSession)
    reason = session.refusal_reason(request) if isinstance(session, SelfDecodingSession) else ""
    reason = "drafts in a tree" if request.tree else reason
    if own and not reason:
        return True
    if loop == "device":
        found = reason if own else "an engine that the host steps"
        fix = 'use loop="auto" or loop="host"'
        wanted = "an engine and a request with a loop of their own"
        raise UserError('loop="device"', expected=wanted, found=found, fix=fix)
    return False
