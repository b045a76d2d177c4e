"""Chooses the plan of a request on an opened engine: from the record of this machine, or by drawing parts of it.

Trials of texts go on behind end tokens: as many texts as were asked for are then written at once to the end of a trial,
as where another one enters when one has ended.

Knows how trials are drawn and what makes requests alike. Does not know which plan wins (`plans`), or files
(`plan_book`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import cycle, islice
from typing import Any

from coolsd_rt.limits import MAX_BATCH
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.drafter_names import JACOBI, DrafterName
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.runtime.progress import Progress
from coolsd_rt.runtime.randomness import SEED_LIMIT
from coolsd_rt.runtime.self_decoding import Loop
from coolsd_rt.workflows import drawing
from coolsd_rt.workflows.drawing import Job, Settings, TextBounds
from coolsd_rt.workflows.plan_book import PlanBook
from coolsd_rt.workflows.plans import Choice, DraftPlan, Trial, choose

SECONDS = 1.5  # of a trial, unless its slowest image has fewer than `LEAST` tokens by then
LEAST = 48
PROMPTS = 24  # samples that trials draw beside the request's prompts
_MIXER = 0x9E3779B97F4A7C15  # odd, so that seeds are different; far from the small numbers that people type


class _Ended(Exception):
    """A trial has run long enough."""


def plan_for(
    engine: Engine,
    jobs: Sequence[Job],
    conditioner: Conditioner,
    settings: Settings,
    book: PlanBook,
    loop: Loop = "auto",
    on_choose: Callable[[int], None] = lambda images: None,
) -> DraftPlan:
    """Return the plan for batches of `len(jobs)` images. Raises as drawing does.

    jobs: images of the request. If there is no plan on record, their prompts and others are drawn in part. on_choose:
    called before that with the number of images.
    """

    def try_all() -> Choice:
        on_choose(len(jobs))
        trials = Trials(engine, prompts_to_try(jobs, conditioner), conditioner, settings, len(jobs), loop)
        return choose(candidates(settings), settings.law.length, trials.run)

    return book.get(kind_of(settings, loop), len(jobs), try_all)


def with_plan(settings: Settings, plan: DraftPlan) -> Settings:
    """Return the settings with the plan's drafts: of a tree, its first levels."""
    law, drafter = settings.law.first(plan.length), plan.drafter or settings.drafter
    keeps = settings.tree is not None and plan.length > 0 and drafter == settings.drafter
    tree = settings.tree.top(plan.length) if keeps and settings.tree else None
    return replace(settings, law=law, drafter=drafter, tree=tree)


def candidates(settings: Settings) -> tuple[DrafterName, ...]:
    """Return the drafters to choose from.

    A lossless law gives the same distribution with any drafts, and neither Jacobi's nor n-grams need a model; texts
    repeat themselves, and images seldom do. A relaxed law does not: its drafter is the one that was asked for. So is
    that of fixed acceptance rates, which hold for the spec's own draft.
    """
    own = settings.drafter
    if own in JACOBI or not settings.law.lossless:
        return (own,)
    others: tuple[DrafterName, ...] = ("jacobi",) if settings.bounds is None else ("ngram", "jacobi")
    return (own, *(name for name in others if name != own))


def kind_of(settings: Settings, loop: Loop) -> dict[str, Any]:
    """Return the JSON data of all that changes which plan is best on one engine, the number of images excepted."""
    law, tolerance = settings.law, settings.law.tolerance
    rule = {} if tolerance is None else {"bound": tolerance.bound, "neighbours": tolerance.lending}
    rates = {} if law.rates is None else {"rates": list(law.rates)}
    drafters = list(candidates(settings))
    law_data = {**settings.law_as_dict(), **rule, **rates, "drafters": drafters}
    if "ngram" in drafters:
        law_data["ngrams"] = asdict(settings.ngrams)
    return {**law_data, "sampling": asdict(settings.sampling), "loop": loop}


def prompts_to_try(jobs: Sequence[Job], conditioner: Conditioner) -> list[Job]:
    """Return a job for each prompt of the request and for `PROMPTS` of the conditioner's own samples.

    How many drafts are accepted differs from prompt to prompt by more than plans differ, and the plan is for all
    requests of a kind: one prompt alone once took the slower drafter. Where a text encoder would be needed, the
    request's prompts have to do.
    """
    own = list({job.prompt: job for job in jobs}.values())
    if conditioner.features_dim:
        return own
    samples = conditioner.samples()
    texts = samples[:: max(1, len(samples) // PROMPTS)][:PROMPTS]
    more = [text for text in texts if text not in {job.prompt for job in own}]
    encoded = drawing.encode(more, conditioner)
    return own + [Job(0, text, 0, read) for text, read in zip(more, encoded, strict=True)]


class Trials:
    """Draws batches of `images` images with different plans; in each turn the next of `jobs`, over and over.

    seconds, tokens: a trial ends after both, or with its images (its texts: as long as the engine's longest). The
    first trial warms up, and ends with its tokens.
    """

    def __init__(
        self,
        engine: Engine,
        jobs: Sequence[Job],
        conditioner: Conditioner,
        settings: Settings,
        images: int,
        loop: Loop = "auto",
        seconds: float = SECONDS,
        tokens: int = LEAST,
    ) -> None:
        self._engine, self._jobs, self._conditioner = engine, jobs, conditioner
        endless = settings.bounds and TextBounds()
        self._settings, self._images, self._loop = replace(settings, bounds=endless), images, loop
        self._seconds, self._tokens = seconds, tokens
        self._limit = 0.0

    def run(self, plan: DraftPlan, bar: Trial | None, turn: int) -> Trial:
        """Draw a batch, or part of it. turn: other prompts and random numbers for each."""
        batch = [self._jobs[(turn * self._images + i) % len(self._jobs)] for i in range(self._images)]
        jobs = [replace(job, index=i, seed=trial_seed(turn, i)) for i, job in enumerate(batch)]
        trial = Trial(plan, bar)
        began = time.perf_counter()

        def note(progress: Progress) -> None:
            seconds, decided = time.perf_counter() - began, int(min(progress.decided))
            trial.add(decided, seconds)
            if trial.hopeless or (seconds > self._limit and decided >= self._tokens):
                raise _Ended

        settings = with_plan(self._settings, plan)
        with suppress(_Ended):
            drawing.draw(self._engine, jobs, self._conditioner, settings, loop=self._loop, on_progress=note)
            trial.add(self._engine.dims.tokens, time.perf_counter() - began)
        self._limit = self._seconds
        return trial


def trial_seed(turn: int, image: int) -> int:
    """Return a seed for an image of a trial.

    It must have nothing to do with the seeds of the request: a plan that was chosen because the request's own drafts
    were accepted fast would favour the tokens that are.
    """
    return (_MIXER * (turn * int(MAX_BATCH.high) + image + 1)) % SEED_LIMIT


def enough_jobs(jobs: Sequence[Job], count: int) -> list[Job]:
    """Return `count` jobs: those that there are, over and over. For trials of a batch that is partly drawn already."""
    return list(islice(cycle(jobs), count))
