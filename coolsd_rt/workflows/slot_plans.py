"""Chooses how each image of a server drafts, by the number of images in flight: pacing `auto` for single requests.

Drafts pay for a lone image on most machines, and cost throughput once several images share a step. So the plans of the
spec's own law are measured before the first request, for 1, 2, 4, ... images at once (`planning`), and recorded as for
any command. An image that enters takes the plan for as many images as there are then, and keeps it to its end: a plan
chosen while it is drawn could depend on its own tokens, and would make it depend on who comes later.

Requests with another law or sampling are not measured while others wait. They take the spec's plan for that number of
images: plain decoding where it is plain, else as many drafts of their own drafter.

Knows plans and numbers of images. Does not know slots, or when a request comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from coolsd_rt.runtime.self_decoding import Loop
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.call_options import Call
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.planning import enough_jobs, kind_of, plan_for
from coolsd_rt.workflows.plans import PLAIN, DraftPlan
from coolsd_rt.workflows.prepared import Prepared


class SlotPlans:
    """The plans of an engine with `slots` slots."""

    def __init__(self, opened: OpenedEngine, slots: int, loop: Loop = "auto") -> None:
        self._opened, self._loop = opened, loop
        self.counts = counts_of(slots)
        self._own: dict[int, DraftPlan] = {}  # of the spec's law, by number of images

    def measure(self, on_choose: Callable[[int], None] = lambda images: None) -> None:
        """Choose the plans of the spec's law, or read them from the record. Loads the engine.

        on_choose: called with the images at once before plans are tried. Raises as drawing does.
        """
        opened = self._opened
        prepared = Prepared.of(opened, Call(()))
        if not prepared.paced:
            return
        kind = kind_of(prepared.asked, self._loop)
        known = {count: opened.plans.find(kind, count) for count in self.counts}
        self._own = {count: plan for count, plan in known.items() if plan is not None}
        if len(self._own) == len(self.counts):
            return
        jobs = drawing.plan(self._prompts(), 1, 0, opened.conditioner)
        for count in self.counts:
            self._own[count] = plan_for(
                opened.engine,
                enough_jobs(jobs, count),
                opened.conditioner,
                prepared.asked,
                opened.plans,
                self._loop,
                on_choose,
            )

    def _prompts(self) -> list[str]:
        samples = [] if self._opened.conditioner.features_dim else self._opened.conditioner.samples()
        return list(samples[:1]) or self._opened.default_prompts()[:1]

    def prepared(self, prepared: Prepared, in_flight: int) -> Prepared:
        """Return a request with its plan. in_flight: images that run or wait, this one included."""
        if not prepared.paced or prepared.plan is not None or not self._own:
            return prepared
        count = next((count for count in self.counts if count >= in_flight), self.counts[-1])
        plan = self._opened.plans.find(kind_of(prepared.asked, self._loop), count)
        return replace(prepared, plan=plan or self._like(self._own[count], prepared))

    def _like(self, own: DraftPlan, prepared: Prepared) -> DraftPlan:
        """Return the spec's plan for a request of another kind."""
        asked = prepared.asked
        return DraftPlan(asked.drafter, min(own.length, asked.law.length)) if own != PLAIN else PLAIN


def counts_of(slots: int) -> list[int]:
    """Return the numbers of images to measure: powers of two below `slots`, and `slots`."""
    return [*(2**k for k in range(slots.bit_length()) if 2**k < slots), slots]
