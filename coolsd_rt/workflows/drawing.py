"""Draws code ids for prompts on any engine: jobs, seeds and batches.

Knows prompts, seeds and the order of rows. Does not know the backend, files or image formats.

Legend: M images of a batch, R rows (2M under CFG: all conditional rows first, then all unconditional).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.errors import UserError
from coolsd_rt.law import Law, Resampler, Tolerance, columns_read, make_omegas
from coolsd_rt.limits import IMAGES, SEED
from coolsd_rt.prompts import Conditioner, Encoded, Rows, check_fit, stack
from coolsd_rt.prompts.base import some_text
from coolsd_rt.runtime.drafter_names import DrafterName
from coolsd_rt.runtime.interface import Engine, Session
from coolsd_rt.runtime.ngrams import NGRAMS, Lookup, NgramSizes
from coolsd_rt.runtime.progress import OnProgress
from coolsd_rt.runtime.randomness import SEED_LIMIT
from coolsd_rt.runtime.round import LoopHooks, OnRound, generate
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.self_decoding import WHOLE, Extent, Loop
from coolsd_rt.runtime.state import capacity
from coolsd_rt.runtime.statistics import Generation
from coolsd_rt.spec import Spec
from coolsd_rt.spec.law import Lantern, LanternPP, PerPosition, Synthetic
from coolsd_rt.spec.networks import Coupling, Draft, JacobiDraft, NgramDraft

if TYPE_CHECKING:
    from coolsd_rt.runtime.trees import TreeShape

JACOBI_WINDOW = 15  # default number of drafts of Jacobi decoding; the window of 16 tokens in the SJD paper
COUPLINGS: dict[Coupling | None, DrafterName] = {None: "jacobi", "maximal": "jacobi_coupled", "gumbel": "jacobi_gumbel"}
"""The Jacobi drafter of each coupling; None: drafts are drawn anew."""
NGRAM_LENGTH = 5  # default number of drafts by n-gram lookup; of ten, the demo keeps hardly more


@dataclass(frozen=True)
class Job:
    """One image to draw. `index` counts all images of a request in the order of the prompts."""

    index: int
    prompt: str
    seed: int
    encoded: Encoded  # the prompt in the form that the target reads

    @property
    def unknown(self) -> tuple[str, ...]:
        """The words of the prompt that could not be read."""
        return self.encoded.unknown


@dataclass(frozen=True)
class TextBounds:
    """Where texts end: at a token of `ends`, or after `limit` tokens (None: as many as the engine has)."""

    ends: tuple[int, ...] = ()
    limit: int | None = None


@dataclass(frozen=True)
class Settings:
    """The values of a spec and an engine that the loop needs. A law of length 0 is plain decoding.

    forced: the id that each image token must have (line end, image end), or -1 if free; None if all tokens are free.
    bounds: of texts; None: images are drawn.
    ngrams: of the drafter `ngram`. tree: the shape of a round's drafts, with one omega of the law for each depth; None:
    a chain.
    """

    law: Law
    sampling: Sampling
    drafter: DrafterName = "eagle"
    forced: tuple[int, ...] | None = None
    bounds: TextBounds | None = None
    ngrams: NgramSizes = NGRAMS
    tree: TreeShape | None = None

    @property
    def plain(self) -> bool:
        """Whether decoding uses no draft."""
        return self.law.length == 0

    def law_as_dict(self) -> dict[str, Any]:
        """Return JSON data for the provenance of an image."""
        return {
            "plain": self.plain,
            "draft": None if self.plain else self.drafter,
            "draft_length": self.law.length,
            "omegas": list(self.law.omegas),
            "rule": self.law.rule,
            "resampler": self.law.resampler,
            **({} if self.tree is None else {"tree": list(self.tree.widths)}),
            **({} if self.law.refinements is None else {"refinements": self.law.refinements}),
        }

    @property
    def drafts(self) -> int:
        """Number of drafts of a round: those of the chain, or the nodes of the tree."""
        return self.law.length if self.tree is None else self.tree.nodes


def settings_of(
    spec: Spec,
    near: NDArray[np.int64] | None = None,
    *,
    forced: tuple[int, ...] | None = None,
    plain: bool = False,
) -> Settings:
    """Return the run-time values of a spec in the form that the loop takes.

    near: int64 [V, n], the engine's neighbours, which the lantern rules need. forced: the engine's forced tokens
    (`OpenedEngine.forced`). Raises UserError if the rule needs neighbours and there are none.
    """
    sampling = Sampling(**spec.sampling.model_dump(), **spec.pacing.model_dump(exclude={"kind"}))
    drafter, draft = drafter_of(spec.draft), spec.draft
    ngrams = NgramSizes(draft.longest, draft.shortest) if isinstance(draft, NgramDraft) else NGRAMS
    if plain:
        return Settings(Law(()), sampling, forced=forced)
    omegas = make_omegas(spec.schedule.kind, spec.draft.length, **spec.schedule.model_dump(exclude={"kind"}))
    rule = spec.acceptance
    if isinstance(rule, Synthetic):
        return Settings(Law(omegas, "target", rates=rule.rates), sampling, drafter, forced, ngrams=ngrams)
    tolerance = _tolerance(rule, spec.resampler.kind, near) if isinstance(rule, Lantern | LanternPP) else None
    refinements = rule.refinements if isinstance(rule, PerPosition) else None
    law = Law(omegas, spec.resampler.kind, tolerance, refinements=refinements)
    settings = Settings(law, sampling, drafter, forced, ngrams=ngrams)
    if spec.tree is None:
        return settings
    from coolsd_rt.runtime.trees import TreeShape  # a start without trees does not pay for them

    return replace(settings, tree=TreeShape(spec.tree))


def _tolerance(rule: Lantern | LanternPP, resampler: Resampler, near: NDArray[np.int64] | None) -> Tolerance:
    """Return the rule with as many neighbour columns as it reads. Raises UserError if the engine has fewer."""
    k, have = rule.neighbours, 0 if near is None else near.shape[1]
    if near is None or have < k:
        expected, found = f"the {k} nearest codes of each code in the engine", f"{have}" if have else "none"
        fix = "set image.neighbours in the spec and build it again"
        raise UserError(f"the rule {rule.rule}", expected=expected, found=found, fix=fix)
    columns = columns_read(k, near.shape[0]) if resampler == "lantern" else k
    if have < columns:
        expected = f"the {columns} nearest codes of each code in the engine (one more than may lend)"
        fewer = f", or set acceptance.neighbours to {k - 1}" if k > 1 else ""
        raise UserError("the resampler lantern", expected=expected, found=f"{have}", fix=f"build it again{fewer}")
    bound = rule.bound if isinstance(rule, Lantern) else rule.factor
    return Tolerance(rule.rule, bound, near[:, :columns], k)


def drafter_of(draft: Draft) -> DrafterName:
    """Return the name of the drafter that the spec's draft uses."""
    if isinstance(draft, JacobiDraft):
        return COUPLINGS[draft.coupled]
    if isinstance(draft, NgramDraft):
        return "ngram"
    return "eagle" if draft.model == "eagle" else "rows" if draft.model == "rows" else "model"


def image_seed(seed: int, variant: int) -> int:
    """Return the seed of image `variant` (from 0) of every prompt: `seed + variant` modulo 2^64.

    An image therefore depends on its own prompt and variant only, not on other prompts, and `--seed 7 -n 1` draws image
    3 of `--seed 4 -n 4` again. Philox takes the seed as its key, so the streams of neighbouring seeds are unrelated.
    """
    return (seed + variant) % SEED_LIMIT


@dataclass(frozen=True)
class Asked:
    """One image of a request, before its prompt is encoded. `index` counts as in `Job`."""

    index: int
    prompt: str
    seed: int


def asked(prompts: Sequence[str], variants: int, seed: int, *, read: Callable[[str], str] = some_text) -> list[Asked]:
    """List all images of a request: all variants of the first prompt, then of the second.

    read: checks a prompt. Raises UserError if there is no prompt, a prompt is not text, or the seed or the number of
    images is out of range.
    """
    for prompt in prompts:
        read(prompt)
    if not prompts:
        raise UserError("prompts", expected="at least one", found="none", fix='give one, for example -p "red apple"')
    variants, seed = IMAGES.check("images per prompt", variants), SEED.check("seed", seed)
    if len(prompts) * variants > IMAGES.high:
        expected, found = f"at most {IMAGES.high} in one request", f"{len(prompts)} prompts of {variants}"
        raise UserError("images", expected=expected, found=found, fix="ask in parts")
    return [
        Asked(k * variants + i, prompt, image_seed(seed, i))
        for k, prompt in enumerate(prompts)
        for i in range(variants)
    ]


def plan(prompts: Sequence[str], variants: int, seed: int, conditioner: Conditioner) -> list[Job]:
    """Return one job per image, in the order of `asked`. Raises UserError as `asked`, or if a prompt is refused."""
    return jobs_of(asked(prompts, variants, seed), conditioner)


def jobs_of(every: Sequence[Asked], conditioner: Conditioner) -> list[Job]:
    """Encode the prompts of `every`. Returns one job per image, in order. Raises UserError if a prompt is refused."""
    encoded = encode([one.prompt for one in every], conditioner)
    return [Job(one.index, one.prompt, one.seed, read) for one, read in zip(every, encoded, strict=True)]


def spread_jobs(texts: Sequence[str], images: int, seed: int, conditioner: Conditioner) -> list[Job]:
    """Distribute images over all prompts. Image k has seed + k, so that neighbouring prompts share no random numbers.

    Raises UserError if the conditioner refuses a prompt, or if the seed or the number of images is out of range.
    """
    images, seed = IMAGES.check("images", images), SEED.check("seed", seed)
    step = max(1, len(texts) // images)
    spread = [texts[k * step % len(texts)] for k in range(images)]
    return jobs_of([Asked(k, text, image_seed(seed, k)) for k, text in enumerate(spread)], conditioner)


def encode(prompts: Sequence[str], conditioner: Conditioner) -> list[Encoded]:
    """Encode every prompt, in order. Equal texts are encoded once, and a text encoder is freed afterwards."""
    try:
        known = {prompt: conditioner.encode(prompt) for prompt in dict.fromkeys(prompts)}
    finally:
        conditioner.release()
    return [known[prompt] for prompt in prompts]


def batches(jobs: Sequence[Job], size: int) -> Iterator[Sequence[Job]]:
    """Split jobs into batches of at most `size`, in order."""
    for start in range(0, len(jobs), size):
        yield jobs[start : start + size]


def prefix_rows(jobs: Sequence[Job], conditioner: Conditioner, guided: bool) -> Rows:
    """Return the conditional rows of the jobs, followed under CFG by as many unconditional rows."""
    return stack(conditioner, [job.encoded for job in jobs], guided)


def open_session(engine: Engine, jobs: Sequence[Job], conditioner: Conditioner, settings: Settings) -> Session:
    """Open a session for the images of `jobs`. Raises CoolsdError if the engine reads another kind of prefix."""
    check_fit(conditioner, engine.dims)
    rows = prefix_rows(jobs, conditioner, settings.sampling.guided)
    sampling = settings.sampling
    paced = max(sampling.confidence, sampling.draft_confidence) > 0
    return engine.open(
        engine.encode_condition(rows.text),
        capacity(engine.dims, settings.drafts, paced and not settings.plain),
        rows.start,
    )


def lookup_of(jobs: Sequence[Job], settings: Settings) -> Lookup:
    """Return the lookup of n-grams of a batch. The prompts of texts are of the tokens that are looked up."""
    texts = settings.bounds is not None
    return Lookup(settings.ngrams, tuple(job.encoded.ids for job in jobs) if texts else ())


def extent_of(jobs: Sequence[Job], settings: Settings) -> Extent:
    """Return from where to where a batch runs."""
    if settings.bounds is None:
        return WHOLE
    limit = settings.bounds.limit
    limits = None if limit is None else (limit,) * len(jobs)
    return Extent(settings.bounds.ends, limits, min(job.encoded.start for job in jobs))


def draw(
    engine: Engine,
    jobs: Sequence[Job],
    conditioner: Conditioner,
    settings: Settings,
    *,
    loop: Loop = "auto",
    on_progress: OnProgress | None = None,
    on_round: OnRound | None = None,
) -> Generation:
    """Draw one batch: code ids int64 [M, tokens] in the jobs' order, and statistics.

    All drawing goes through this function.

    loop, on_progress, on_round: see `runtime.round.generate`. The session's memory is free when this returns.
    """
    began = time.perf_counter()
    session = open_session(engine, jobs, conditioner, settings)
    seconds = time.perf_counter() - began
    seeds = [job.seed for job in jobs]
    generation = generate(
        session,
        settings.law,
        settings.sampling,
        seeds,
        settings.forced,
        drafter=lookup_of(jobs, settings) if settings.drafter == "ngram" else settings.drafter,
        loop=loop,
        hooks=LoopHooks(on_progress=on_progress, on_round=on_round),
        extent=extent_of(jobs, settings),
        tree=settings.tree,
    )
    generation.statistics.seconds_prefix = seconds
    return generation
