"""What one image or text is asked for by name: a prompt, a seed, and values that replace the spec's.

A request over HTTP and a row of a prompts file have these fields, and each adds its own. Knows names, types and ranges.
Does not know engines, or where a value comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coolsd_rt import limits
from coolsd_rt.errors import UserError
from coolsd_rt.spec.section import Within

Section = Annotated[str, Field(max_length=64)] | dict[str, Any]

OPTIONS = (
    "guidance_scale",
    "cfg_interval",
    "temperature",
    "top_k",
    "top_p",
    "schedule",
    "acceptance",
    "resampler",
    "pacing",
    "draft_length",
    "plain",
    "draft",
)
"""Fields that go to `Call.of` under their own names."""


class LawOptions(BaseModel):
    """Fields that are left out, or None, keep the values of the engine's spec."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    seed: Annotated[int, Within(limits.SEED)] | None = Field(None, description="Seed of the random numbers.")
    guidance_scale: Annotated[float, Within(limits.CFG_SCALE)] | None = Field(
        None, description="Scale of classifier-free guidance; 1 disables guidance."
    )
    cfg_interval: Annotated[int, Within(limits.CFG_INTERVAL)] | None = Field(
        None, description="Last decode step with guidance; -1 guides all steps."
    )
    temperature: Annotated[float, Within(limits.TEMPERATURE)] | None = Field(
        None, description="Divides the logits; 0 is greedy."
    )
    top_k: Annotated[int, Within(limits.TOP_K)] | None = Field(
        None, description="Keep the k most probable tokens; 0 keeps all."
    )
    top_p: Annotated[float, Within(limits.TOP_P)] | None = Field(
        None, description="Keep the smallest set of most probable tokens with this total probability."
    )
    schedule: Section | None = Field(None, description="Relaxation: a kind, or keys of the spec's schedule.")
    delta: Annotated[float, Within(limits.OMEGA)] | None = Field(
        None, description='Relaxation budget; short for schedule={"delta": ...}.'
    )
    acceptance: Section | None = Field(None, description="Acceptance rule, or keys of the spec's acceptance.")
    resampler: Section | None = Field(None, description="Distribution that a token is drawn from after a rejection.")
    pacing: Section | None = Field(None, description="auto or manual, or keys of the spec's pacing.")
    draft_length: Annotated[int, Within(limits.DRAFT_LENGTH)] | None = Field(
        None, description="Tokens drafted per round, at most under pacing auto."
    )
    plain: bool | None = Field(None, description="Decode without a draft.")
    draft: Literal["jacobi", "jacobi-coupled", "jacobi-gumbel", "ngram"] | None = Field(
        None,
        description="Drafts without a model instead of the built one: the target's last round, or n-gram lookup.",
    )

    def options(self, seed: int) -> dict[str, Any]:
        """Return the options for `Call.of`. Raises UserError if delta is given twice."""
        given = {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}
        if self.delta is not None:
            schedule = given.get("schedule", {})
            keys = dict(schedule) if isinstance(schedule, Mapping) else {"kind": schedule}
            if "delta" in keys:
                raise UserError("delta", expected="delta or schedule['delta']", found="both", fix="drop one")
            given["schedule"] = {**keys, "delta": self.delta}
        return {**given, "seed": seed}


class ImageOptions(LawOptions):
    """One image: its prompt, and options."""

    prompt: Annotated[str, Field(min_length=1, max_length=int(limits.PROMPT_CHARACTERS.high))] = Field(
        description="What to draw."
    )
