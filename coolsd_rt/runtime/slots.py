"""Slots: images that enter and leave between rounds, each as soon as there is room.

A slot is one image: two rows under CFG, which never part. Images that can share a step form a group, whose loop has one
session; groups take turns, a round each. A newcomer runs its prefix through a session of its own, which then joins the
group's, in the rows of an image that has finished where there is one; the others wait for that one step.

An image's tokens do not depend on the images beside it nor on when it came: its random numbers, sampling settings,
omegas and draft length are its own.

On a session that decodes by itself (a GPU's loop), or whose rows cannot change, images are drawn in batches instead:
those that wait and are alike enter together, when all slots are free.

Knows sessions, groups and turns. Does not know prompts, pixels, or who asked for an image.

Legend: M images of a group, N image tokens.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from coolsd_rt.runtime.decoding_loop import DecodingLoop
from coolsd_rt.runtime.interface import Session
from coolsd_rt.runtime.ngrams import Lookup
from coolsd_rt.runtime.progress import Progress
from coolsd_rt.runtime.randomness import uniform_table
from coolsd_rt.runtime.sampling import forced_ids
from coolsd_rt.runtime.self_decoding import DecodeRequest, Extent, Loop, SelfDecodingSession, decodes_itself
from coolsd_rt.runtime.slot_group import (
    DrawnImage,
    ImageRequest,
    Slot,
    SlotGroup,
    SlotProgress,
    progress_of,
    statistics_of,
)
from coolsd_rt.runtime.statistics import LoopTaken, Statistics, Stopwatch

OpenSession = Callable[[Sequence[ImageRequest]], Session]
"""Opens a fresh session for images that are `alike`."""


@dataclass(frozen=True)
class SlotHooks:
    """Callbacks of slots.

    Attributes:
        on_progress: called after each round, and on a device's loop as often as it learns of rounds, with the images of
            the group that had its turn, finished ones included.
        on_finished: called with the statistics of images that are finished and the loop that drew them. Seconds are of
            all rounds since the last call.
        clock: returns seconds.
    """

    on_progress: Callable[[Sequence[SlotProgress]], None] | None = None
    on_finished: Callable[[Statistics, LoopTaken], None] | None = None
    clock: Callable[[], float] = time.perf_counter


class Slots:
    """Draws images in at most `slots` slots."""

    def __init__(
        self, slots: int, open_session: OpenSession, loop: Loop = "auto", hooks: SlotHooks | None = None
    ) -> None:
        """loop: as in `runtime.round.generate`."""
        self._slots, self._open, self._loop, self._hooks = slots, open_session, loop, hooks or SlotHooks()
        self._waiting: deque[Slot] = deque()
        self._groups: dict[Hashable, SlotGroup] = {}  # the next to have its turn comes first
        self._watch = Stopwatch(self._hooks.clock)
        self._seconds_prefix = 0.0
        self._batches = False  # whether this engine's images are drawn in batches

    @property
    def waiting(self) -> int:
        """Number of images that wait for a slot."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Number of images that have a slot."""
        return sum(len(group.live) for group in self._groups.values())

    @property
    def busy(self) -> bool:
        """Whether a `step` has anything to do."""
        return bool(self._waiting or self._groups)

    def enter(self, ticket: int, request: ImageRequest) -> None:
        """Let an image wait for a slot. ticket: a number that no other image here has."""
        self._waiting.append(Slot(ticket, request, self._hooks.clock()))

    def leave(self, ticket: int) -> None:
        """Drop an image that is not wanted any more; nothing happens if there is none. Its slot is free at once."""
        self._waiting = deque(one for one in self._waiting if one.ticket != ticket)
        for key, group in list(self._groups.items()):
            for one in group.live:
                if one.ticket == ticket:
                    one.live = False
            if not group.live:
                del self._groups[key]

    def drop_drafts(self) -> None:
        """Draw images with `may_drop_drafts` without drafts from their next round on, with those that have none.

        For a loop that has become so busy that drafts cost more than they save. When may depend on who comes, not on
        what is drawn (`DecodingLoop.drop_drafts`). Without effect where rows cannot change.
        """
        for key, group in list(self._groups.items()):
            if not self._batches and group.may_drop_drafts:
                del self._groups[key]
                plain = group.drop_drafts()
                if plain in self._groups:
                    self._groups[plain].merge(group)
                else:
                    self._groups[plain] = group

    def step(self) -> list[DrawnImage]:
        """Let waiting images enter free slots and run one round of one group. Returns the images that are finished.

        On an engine that draws batches: draw one. Raises CoolsdError if the engine fails.
        """
        self._watch.lap("other")
        drawn = self._admit()
        if self._groups:
            key = next(iter(self._groups))
            group = self._groups.pop(key)
            finished = group.round()
            if group.live:
                self._groups[key] = group  # the last in turn
            drawn += self._told(group, finished)
        return drawn

    def _admit(self) -> list[DrawnImage]:
        """Give free slots to those that wait longest; return images that this has finished already."""
        drawn: list[DrawnImage] = []
        while self._waiting and (room := self._slots - self.running) > 0 and not (self._batches and self.running):
            alike = self._waiting[0].request.alike
            newcomers: list[Slot] = []
            while self._waiting and len(newcomers) < room and self._waiting[0].request.alike == alike:
                newcomers.append(self._waiting.popleft())
            drawn += self._begin(newcomers)
            if self._batches:
                break  # one of them at a time: who waits for the next may leave
        return drawn

    def _begin(self, newcomers: Sequence[Slot]) -> list[DrawnImage]:
        """Run the prefixes of images that are alike, and let them join their group."""
        began = self._hooks.clock()
        for one in newcomers:
            one.began = began
        asked = [one.request for one in newcomers]
        session, first = self._open(asked), asked[0]
        self._seconds_prefix += self._hooks.clock() - began
        drafts = first.tree.nodes if first.tree else first.law.length
        table = uniform_table([one.seed for one in asked], session.dims.tokens, drafts, first.law.passes)
        forced = forced_ids(first.forced, session.dims.tokens, session.dims.vocab)
        tokens = session.dims.tokens
        limits = tuple(tokens if one.limit is None else one.limit for one in asked)
        request = DecodeRequest(
            first.law,
            first.sampling,
            table,
            forced,
            first.drafter,
            clock=self._hooks.clock,
            extent=Extent(first.ends, limits if min(limits) < tokens else None, first.first),
            lookup=Lookup(first.ngrams, tuple(one.prompt for one in asked)),
            tree=first.tree,
        )
        if decodes_itself(session, request, self._loop):
            self._batches = True
            return self._decode(session, request, newcomers)
        loop = DecodingLoop(session, request, self._watch)
        self._batches = not loop.changes
        loop.prefill()
        group = self._groups.get(first.group)
        if group is None:
            group = self._groups[first.group] = SlotGroup(loop, newcomers)
        else:
            group.join(loop, newcomers)
        finished = group.newly_finished()  # images of one token
        if not group.live:
            del self._groups[first.group]
        return self._told(group, finished)

    def _told(self, group: SlotGroup, finished: Sequence[Slot]) -> list[DrawnImage]:
        """Report a round of a group, and the images that it finished."""
        if self._hooks.on_progress is not None:
            self._hooks.on_progress(group.progress(finished))
        self._watch.lap("other")
        now = self._hooks.clock()
        drawn = [one.drawn(group.codes(one), now) for one in finished]
        if finished and self._hooks.on_finished is not None:
            statistics = statistics_of(finished)
            statistics.seconds = self._watch.take()
            self._count(statistics, "host")
        return drawn

    def _count(self, statistics: Statistics, loop: LoopTaken) -> None:
        statistics.seconds_prefix, self._seconds_prefix = self._seconds_prefix, 0.0
        if self._hooks.on_finished is not None:
            self._hooks.on_finished(statistics, loop)

    def _decode(self, session: SelfDecodingSession, request: DecodeRequest, images: Sequence[Slot]) -> list[DrawnImage]:
        """Draw a batch on a session's own loop."""

        def tell(progress: Progress) -> None:
            if self._hooks.on_progress is not None:
                self._hooks.on_progress(progress_of(images, progress))

        drawn = session.decode(replace(request, on_progress=tell))
        self._count(drawn.statistics, drawn.loop)
        now = self._hooks.clock()
        return [one.drawn(codes, now, drawn.loop) for one, codes in zip(images, drawn.codes, strict=True)]
