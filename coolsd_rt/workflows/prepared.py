"""Applies a request's run-time values to an engine's spec, and describes each image for its provenance.

Knows which values exclude each other. Does not know files or how an image is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from coolsd_rt import __version__
from coolsd_rt.errors import UserError
from coolsd_rt.prompts import Conditioner
from coolsd_rt.runtime.drafter_names import WITHOUT_MODEL
from coolsd_rt.runtime.self_decoding import Loop
from coolsd_rt.spec import Spec, SpecError, with_draft_length, with_jacobi, with_ngram, with_overrides
from coolsd_rt.spec.override import option_of
from coolsd_rt.workflows.drawing import COUPLINGS, JACOBI_WINDOW, NGRAM_LENGTH, Asked, Job, Settings
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.planning import enough_jobs, kind_of, plan_for, with_plan
from coolsd_rt.workflows.plans import DraftPlan

if TYPE_CHECKING:  # of Python and the server alone: `generate` starts without it
    from coolsd_rt.workflows.call_options import Call

JACOBI_DRAFTS = {name.replace("_", "-"): coupling for coupling, name in COUPLINGS.items()}
DRAFTS = (*JACOBI_DRAFTS, "ngram")  # drafters that can replace the built draft
SYNTHETIC = "acceptance is synthetic: these are timings, not images of the model"


class Values(Protocol):
    """Run-time values of a request, which replace the spec's."""

    @property
    def overrides(self) -> Mapping[str, Any]:
        """Spec keys (`schedule.delta`) and their values."""
        ...

    @property
    def draft_length(self) -> int | None:
        """Draft length; None is the built one."""
        ...

    @property
    def plain(self) -> bool:
        """Whether to decode without a draft."""
        ...

    @property
    def draft(self) -> str | None:
        """One of `DRAFTS`, or None for the spec's draft."""
        ...


def resolve(opened: OpenedEngine, values: Values, names: Mapping[str, str] | None = None) -> Spec:
    """Return the engine's spec with a request's run-time values.

    names: what the user typed for each spec key; default: the options of the command line. Raises UserError if the spec
    refuses a value.
    """
    spec = opened.spec
    if values.plain:
        told = [k for k in values.overrides if k.startswith(("schedule.", "resampler.", "acceptance.", "pacing."))]
        if told or values.draft_length is not None or values.draft is not None:
            words = [(names or {}).get(key, option_of(key)) for key in told]
            found = " ".join(words) if told else "a draft" + (" length" if values.draft is None else "")
            raise UserError("plain decoding", expected="no draft and nothing about one", found=found, fix="drop one")
    if values.draft is not None:
        if values.draft not in DRAFTS:
            raise UserError("the draft", expected=f"one of {', '.join(DRAFTS)}", found=values.draft)
        length = values.draft_length
        if length is None:
            usual = NGRAM_LENGTH if values.draft == "ngram" else JACOBI_WINDOW
            length = min(usual, opened.description.dims.tokens)
        if values.draft == "ngram":
            spec = with_ngram(spec, length, names)
        else:
            spec = with_jacobi(spec, length, JACOBI_DRAFTS[values.draft], names=names)
    elif values.draft_length is not None:
        spec = with_draft_length(spec, values.draft_length)
    return with_overrides(spec, values.overrides, names)


@dataclass(frozen=True)
class Prepared:
    """An engine and the settings of a request. The engine is not loaded yet, and its files may not be hashed.

    asked: the settings of the spec, with the request's values. plan: how its rounds draft, once it is chosen; None: as
    the settings have it.
    """

    opened: OpenedEngine
    spec: Spec
    asked: Settings
    plan: DraftPlan | None = None

    @staticmethod
    def of(opened: OpenedEngine, values: Values, names: Mapping[str, str] | None = None) -> Prepared:
        """Prepare a request.

        Raises UserError if the spec refuses a value or the draft is longer than the image, CoolsdError if a file is
        broken.
        """
        spec = resolve(opened, values, names)
        settings = opened.settings(spec, plain=values.plain)
        tokens = opened.description.dims.tokens
        if settings.law.length > tokens:
            found = str(settings.law.length)
            raise UserError("the draft length", expected=f"at most the {spec.writes}'s {tokens} tokens", found=found)
        return Prepared(opened, spec, settings)

    @staticmethod
    def of_call(opened: OpenedEngine, call: Call) -> Prepared:
        """Prepare a call with options by name. Raises as `of`; what is wrong with the spec is one line then."""
        try:
            return Prepared.of(opened, call, call.names)
        except SpecError as error:
            raise SpecError(error.problems, one_line=True) from None

    def with_asked(self, asked: Settings) -> Prepared:
        """Return the request with other settings: a text's bounds."""
        return replace(self, asked=asked)

    @property
    def settings(self) -> Settings:
        """The settings that images are drawn with."""
        return self.asked if self.plan is None else with_plan(self.asked, self.plan)

    @property
    def paced(self) -> bool:
        """Whether this machine chooses how rounds draft: pacing `auto`."""
        return self.spec.pacing.kind == "auto" and not self.asked.plain

    def recorded(self, images: int, loop: Loop = "auto") -> Prepared:
        """Return the request with the plan that is on record for it; as it is if there is none. Loads nothing.

        images: as in `planned`.
        """
        if not self.paced or self.plan is not None:
            return self
        plan = self.opened.plans.find(kind_of(self.asked, loop), min(images, self.spec.engine.max_batch))
        return self if plan is None else replace(self, plan=plan)

    @property
    def later_graphs(self) -> frozenset[str]:
        """The graphs that the request does not need to draw tokens. While plans have to be tried, the image's alone."""
        if self.paced and self.plan is None:
            return frozenset({"image"})
        settings = self.settings
        if settings.plain or settings.drafter in WITHOUT_MODEL:
            return frozenset({"image", "draft", "propose"})
        # The graph of all draft steps has one length; other lengths are drafted step by step.
        built = settings.law.length == self.opened.description.draft_length
        return frozenset({"image"} if built else {"image", "propose"})

    def planned(
        self,
        jobs: Sequence[Job],
        images: int,
        loop: Loop = "auto",
        on_choose: Callable[[int], None] = lambda images: None,
    ) -> Prepared:
        """Return the request with the plan of this machine, under pacing `auto`; else as it is. Loads the engine.

        jobs: at least one of the request. images: of the whole request; the plan is that of its largest batch, so that
        the images do not depend on how many of them are there already. on_choose: called with the images at once
        before plans are tried, which happens once for a kind of request.
        """
        if not self.paced or self.plan is not None or not jobs:
            return self
        batch = enough_jobs(jobs, min(images, self.spec.engine.max_batch))
        opened = self.opened
        plan = plan_for(opened.engine, batch, opened.conditioner, self.asked, opened.plans, loop, on_choose)
        return replace(self, plan=plan)

    def provenance(self, one: Asked) -> dict[str, Any]:
        """Return the JSON data needed to draw an image again, with its `seed` as `--seed` and `-n 1`."""
        conditioner, manifest = self.opened.conditioner, self.opened.manifest
        return {
            "version": __version__,
            "engine": {"name": manifest.name, "fingerprint": manifest.fingerprint},
            "prompt": one.prompt,
            "seed": one.seed,
            **_origin(conditioner, one.prompt),
            "law": self.asked.law_as_dict(),
            **({} if self.plan is None else {"plan": self.plan.as_dict()}),
            "spec": self.spec.resolved(),
        }

    def warnings(self, jobs: Sequence[Job]) -> tuple[str, ...]:
        """Return the warnings to show with the images."""
        return (*unknown_words(jobs), *([SYNTHETIC] if self.asked.law.rule == "synthetic" else []))


def _origin(conditioner: Conditioner, prompt: str) -> dict[str, Any]:
    """Return where a prompt's features come from, for its provenance; nothing of a condition of ids."""
    if not conditioner.features_dim:
        return {}
    from coolsd_rt.prompts import T5Conditioner  # not imported for ids

    return {"condition": conditioner.origin(prompt)} if isinstance(conditioner, T5Conditioner) else {}


def unknown_words(jobs: Sequence[Job]) -> tuple[str, ...]:
    """Return one line for each prompt with words that the model does not know."""
    lines = {
        job.prompt: f"{job.prompt!r}: the model does not know {', '.join(dict.fromkeys(job.unknown))}; drawn anyway"
        for job in jobs
        if job.unknown
    }
    return tuple(lines.values())
