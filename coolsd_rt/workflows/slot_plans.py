"""Chooses how each image of a server drafts, by the number of images in flight: pacing `auto` for single requests.

Drafts pay for a lone image on most machines, and cost throughput once several images share a step. So the plans of the
spec's own law are measured for 1, 2, 4, ... images at once (`planning`), between requests where they are not on record,
and recorded as for any command. An image that enters takes the plan for as many images as there are then. If
so many come that drafts do not pay any more, it goes on without (`drafts_pay`): beside plain images its rounds would be
steps of their own, and slow all others down. That depends on who comes, not on what is drawn, so the law stays.
Until a plan is measured, a lone image drafts as the spec says, and several decode plainly.

Requests with another law or sampling are not measured while others wait. They take the spec's plan for that number of
images: plain decoding where it is plain, else as many drafts of their own drafter.

Knows plans and numbers of images. Does not know slots, or when a request comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from coolsd_rt.runtime.self_decoding import Loop
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.call_options import Call
from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.planning import Trials, candidates, enough_jobs, kind_of, prompts_to_try
from coolsd_rt.workflows.plans import PLAIN, Choice, DraftPlan, Trial, choose
from coolsd_rt.workflows.prepared import Prepared


class SlotPlans:
    """The plans of an engine with `slots` slots."""

    def __init__(self, opened: OpenedEngine, slots: int, loop: Loop = "auto") -> None:
        self._opened, self._loop = opened, loop
        self.counts = counts_of(slots)
        self._own: dict[int, DraftPlan] = {}  # of the spec's law, by number of images

    def measure(
        self,
        between: Callable[[], None] = lambda: None,
        on_choose: Callable[[int], None] = lambda images: None,
    ) -> None:
        """Choose the plans of the spec's law, or read them from the record. Loads the engine.

        between: called before each trial, which takes a second or two: time for those who wait. on_choose: called with
        the images at once before plans are tried. Raises as drawing and `between` do.
        """
        opened = self._opened
        asked = self._asked()
        if asked is None:
            return
        self.read()
        jobs = [] if len(self._own) == len(self.counts) else drawing.plan(self._prompts(), 1, 0, opened.conditioner)
        for count in self.counts:
            if count not in self._own:
                on_choose(count)
                choice = self._chosen(asked, enough_jobs(jobs, count), between)
                # Not chosen inside: the record would be locked while others are served.
                self._own[count] = opened.plans.get(kind_of(asked, self._loop), count, lambda choice=choice: choice)  # type: ignore[misc]

    def read(self) -> None:
        """Take the plans that are on record."""
        if (asked := self._asked()) is not None:
            kind = kind_of(asked, self._loop)
            known = {count: self._opened.plans.find(kind, count) for count in self.counts}
            self._own = {count: plan for count, plan in known.items() if plan is not None}

    def _asked(self) -> Settings | None:
        """Return the settings of the spec; None if it says how to draft."""
        prepared = Prepared.of(self._opened, Call(()))
        return prepared.asked if prepared.paced else None

    def _chosen(self, asked: Settings, jobs: Sequence[Job], between: Callable[[], None]) -> Choice:
        opened = self._opened
        tried = prompts_to_try(jobs, opened.conditioner)
        trials = Trials(opened.engine, tried, opened.conditioner, asked, len(jobs), self._loop)

        def run(plan: DraftPlan, bar: Trial | None, turn: int) -> Trial:
            between()
            return trials.run(plan, bar, turn)

        return choose(candidates(asked), asked.law.length, run)

    def _prompts(self) -> list[str]:
        samples = [] if self._opened.conditioner.features_dim else self._opened.conditioner.samples()
        return list(samples[:1]) or self._opened.default_prompts()[:1]

    def prepared(self, prepared: Prepared, in_flight: int) -> Prepared:
        """Return a request with its plan. in_flight: images that run or wait, this one included."""
        if not prepared.paced or prepared.plan is not None:
            return prepared
        count = self._count(in_flight)
        plan = self._opened.plans.find(kind_of(prepared.asked, self._loop), count)
        if plan is None and count in self._own:
            plan = plan_like(self._own[count], prepared.asked)
        return replace(prepared, plan=plan or (plan_like(None, prepared.asked) if count == 1 else PLAIN))

    def drafts_pay(self, in_flight: int) -> bool:
        """Whether images that are drawn keep their drafts with so many in flight."""
        count = self._count(in_flight)
        return self._own.get(count, PLAIN) != PLAIN or count == 1

    def _count(self, in_flight: int) -> int:
        return next((count for count in self.counts if count >= in_flight), self.counts[-1])


def plan_like(own: DraftPlan | None, asked: Settings) -> DraftPlan:
    """Return the plan of one kind of request for one of another kind. own: None: as many drafts as the request has."""
    if own == PLAIN:
        return PLAIN
    return DraftPlan(asked.drafter, asked.law.length if own is None else min(own.length, asked.law.length))


def counts_of(slots: int) -> list[int]:
    """Return the numbers of images to measure: powers of two below `slots`, and `slots`."""
    return [*(2**k for k in range(slots.bit_length()) if 2**k < slots), slots]
