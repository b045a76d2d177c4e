"""A long job: what all of its images have in common, and how each row is drawn.

An image of a job is a function of its row, the job and its plan. So the plan of pacing `auto` is chosen once, before
the first image, and kept in the output folder: whoever continues the job draws by it, also on another machine. No image
drops its drafts because others have come. Knows rows and an opened engine. Does not know which rows are there already.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from coolsd_rt import limits
from coolsd_rt.batch.part_files import Format
from coolsd_rt.batch.prompt_row import PromptRow
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.prompts import Conditioner, Encoded
from coolsd_rt.runtime.randomness import SEED_LIMIT
from coolsd_rt.spec.fields import DraftLength, Flag, Seed, check_fields
from coolsd_rt.spec.section import Within
from coolsd_rt.store.hashing import canonical
from coolsd_rt.workflows.call_options import SECTIONS, Call
from coolsd_rt.workflows.drawing import Job
from coolsd_rt.workflows.drawing import plan as jobs_of_prompts
from coolsd_rt.workflows.opened import OpenedEngine
from coolsd_rt.workflows.opening import PromptInputs
from coolsd_rt.workflows.planning import enough_jobs, kind_of, plan_for
from coolsd_rt.workflows.plans import DraftPlan
from coolsd_rt.workflows.prepared import Prepared
from coolsd_rt.workflows.slot_plans import plan_like

_MOST_SETTINGS = 256  # different settings of rows that are remembered


@dataclass(frozen=True)
class JobSettings:
    """Values of all rows that do not have their own. overrides: run-time keys of the spec and their values.

    seed: row k has seed + k, modulo 2^64. draft_length, plain, draft: as for `generate`.
    """

    seed: Seed = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    draft_length: DraftLength | None = None
    plain: Flag = False
    draft: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def seed_of(self, row: PromptRow, number: int) -> int:
        """Return the seed of a row. number: of the row, from 0."""
        return row.seed if row.seed is not None else (self.seed + number) % SEED_LIMIT

    def call_of(self, row: PromptRow, seed: int) -> Call:
        """Return what a row asks for, its own values before ours. Raises UserError as `Call.of` does."""
        call = Call.of(row.prompt, row.options(seed))
        ours = {key: value for key, value in self.overrides.items() if not _replaced(key, call)}
        if call.plain:
            return replace(call, overrides={**ours, **call.overrides})
        return replace(
            call,
            overrides={**ours, **call.overrides},
            draft_length=self.draft_length if call.draft_length is None else call.draft_length,
            draft=self.draft if call.draft is None else call.draft,
            plain=self.plain if row.plain is None else row.plain,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return JSON data: keyword arguments of this class."""
        return {**asdict(self), "overrides": dict(self.overrides)}


def _replaced(key: str, call: Call) -> bool:
    """Whether a value of the job is none of a row's: the row is plain, or has another kind of the section."""
    section, _, name = key.partition(".")
    if call.plain:
        return section != "sampling"
    tag = f"{section}.{SECTIONS.get(section, '')}"
    return tag in call.overrides and name != tag


@dataclass(frozen=True)
class JobOrder:
    """All that a process needs to draw parts of a job, as JSON data.

    engine: folder of the build. out: output folder. slots: images drawn at once; None is the spec's `engine.max_batch`.
    plan: of the job's own settings; None if they are not paced by the machine. features, text_encoder: paths
    that replace the spec's.
    """

    engine: str
    fingerprint: str
    out: str
    kind: Format
    settings: JobSettings
    slots: Annotated[int, Within(limits.MAX_BATCH)] | None = None
    plan: DraftPlan | None = None
    features: str | None = None
    text_encoder: str | None = None

    def as_json(self) -> str:
        """Return JSON text; `of` takes it back."""
        plan = None if self.plan is None else self.plan.as_dict()
        return json.dumps({**asdict(self), "settings": self.settings.as_dict(), "plan": plan})

    @staticmethod
    def of(text: str) -> JobOrder:
        """Return the order of `as_json`'s text."""
        data = json.loads(text)
        plan = None if data["plan"] is None else DraftPlan.of(data["plan"])
        return JobOrder(**{**data, "settings": JobSettings(**data["settings"]), "plan": plan})


class BatchJob:
    """A job on an opened engine."""

    def __init__(self, opened: OpenedEngine, order: JobOrder) -> None:
        """Raises UserError if the spec refuses the job's values, CoolsdError if the engine is another build."""
        found = opened.manifest.fingerprint
        if found != order.fingerprint:
            expected, fix = f"the engine {order.fingerprint[:12]}…", "copy the same engine to each machine"
            raise CoolsdError(str(opened.folder.folder), expected=expected, found=f"{found[:12]}…", fix=fix)
        self.opened, self.order = opened, order
        self.base = Prepared.of(opened, order.settings)
        self._known: dict[bytes, Prepared] = {}

    @property
    def slots(self) -> int:
        """Images drawn at once."""
        return self.order.slots or self.opened.spec.engine.max_batch

    @property
    def conditioner(self) -> Conditioner:
        """Reads the prompts."""
        return self.opened.conditioner

    def choose_plan(self, prompts: Sequence[str], on_choose: Callable[[int], None]) -> DraftPlan | None:
        """Return the plan of this machine for as many images as there are slots; None if the job is not paced by it.

        prompts: some of the job's; where the engine refuses all, its own samples are drawn. on_choose: called with the
        images at once before plans are tried, which takes half a minute; they are not if one is on record. Raises as
        drawing does.
        """
        if not self.base.paced:
            return None
        opened, asked = self.opened, self.base.asked
        if (known := opened.plans.find(kind_of(asked, "auto"), self.slots)) is not None:
            return known
        jobs = enough_jobs(self._trial_jobs(prompts), self.slots)
        return plan_for(opened.engine, jobs, opened.conditioner, asked, opened.plans, on_choose=on_choose)

    def _trial_jobs(self, prompts: Sequence[str]) -> list[Job]:
        """Return jobs of the prompts that the engine reads: one that it refuses is a failed row, no end of the job."""
        encoded = encode_each(prompts, self.conditioner)
        read = [(text, found) for text, found in encoded.items() if not isinstance(found, UserError)]
        if not read:
            return jobs_of_prompts(self.conditioner.samples()[:1], 1, 0, self.conditioner)
        return [Job(index, text, index, found) for index, (text, found) in enumerate(read)]

    def prepared(self, row: PromptRow, seed: int) -> Prepared:
        """Return how a row is drawn. Raises UserError if the spec or the engine refuses a value."""
        call = self.order.settings.call_of(row, seed)
        key = canonical([dict(call.overrides), call.draft_length, call.plain, call.draft])
        if key not in self._known:
            if len(self._known) >= _MOST_SETTINGS:
                self._known.clear()
            self._known[key] = self._planned(call)
        return self._known[key]

    def _planned(self, call: Call) -> Prepared:
        prepared = Prepared.of_call(self.opened, call)
        plan = self.order.plan
        if not prepared.paced or plan is None:
            return prepared  # of a row that wants pacing auto in a job without: as many drafts as its law has
        alike = kind_of(prepared.asked, "auto") == kind_of(self.base.asked, "auto")
        return replace(prepared, plan=plan if alike else plan_like(plan, prepared.asked))


def engine_at(order: JobOrder, threads: int | None) -> OpenedEngine:
    """Find the engine of an order on this machine. Raises CoolsdError if it is not there."""
    if not Path(order.engine).is_dir():
        expected, fix = "the engine's folder on every machine", "copy it there, or use a folder that all machines see"
        raise CoolsdError(order.engine, expected=expected, found="nothing", fix=fix)
    reading = PromptInputs(order.features, order.text_encoder)  # type: ignore[arg-type]  # a str becomes a Path
    return OpenedEngine.at(order.engine, reading, threads)


def encode_each(prompts: Sequence[str], conditioner: Conditioner) -> dict[str, Encoded | UserError]:
    """Encode prompts, or keep why one is refused. A text encoder is freed afterwards."""
    out: dict[str, Encoded | UserError] = {}
    try:
        for prompt in dict.fromkeys(prompts):
            try:
                out[prompt] = conditioner.encode(prompt)
            except MissingExtra:
                raise
            except UserError as error:
                out[prompt] = error
    finally:
        conditioner.release()
    return out
