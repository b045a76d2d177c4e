"""The run-time sections of a spec: schedule, resampler, acceptance, sampling, pacing.

Knows keys, ranges and defaults. Does not know their effect on probabilities: `coolsd_rt.law` does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from coolsd_rt import limits
from coolsd_rt.spec.section import Section, Within, complaint

Delta = Annotated[
    float,
    Within(limits.OMEGA),
    Field(
        description="Budget: the mean of omega over the draft's positions, before the floor. 1 is lossless only on "
        "average"
        "; above 1 accepts more and deviates more."
    ),
]
_FLOOR = "Lower bound of omega at every position. 1.0 costs no quality and accepts more; null sets no bound."
OptionalFloor = Annotated[float, Within(limits.OMEGA)] | None
Decay = Annotated[float, Within(limits.DECAY)]
Probability = Annotated[float, Within(limits.PROBABILITY)]


class Exponential(Section):
    """The paper's annealed schedule: omega_i = delta * exp(-nu * i - mu), with mean delta."""

    kind: Literal["exponential"] = Field(description="`exponential`: falls by the same factor at each position.")
    delta: Delta
    nu: Decay = Field(default=0.7, description="Decay per position. 0 is uniform; the paper uses 0.7.")
    floor: OptionalFloor = Field(default=1.0, description=f"{_FLOOR} The paper's schedule has none.")


class Linear(Section):
    """omega falls linearly, with mean delta."""

    kind: Literal["linear"] = Field(description="`linear`: falls by the same amount at each position.")
    delta: Delta
    floor: OptionalFloor = Field(default=1.0, description=_FLOOR)


class Uniform(Section):
    """omega_i = delta at every position (the paper's UniformRSD)."""

    kind: Literal["uniform"] = Field(description="`uniform`: the same omega at each position.")
    delta: Delta
    floor: OptionalFloor = Field(default=None, description=_FLOOR)


class Excess(Section):
    """omega_i = 1 + beta * exp(-nu * (i - 1)): never below 1; it approximates uniform and annealed schedules."""

    kind: Literal["excess"] = Field(description="`excess`: the part above 1 falls by the same factor at each position.")
    beta: Annotated[float, Within(limits.OMEGA)] = Field(description="First omega minus 1. 0 is lossless.")
    nu: Decay = Field(default=0.7, description="Decay per position of the part above 1. 0 is uniform.")


class NoRelaxation(Section):
    """omega_i = 1: classic speculative decoding, lossless with an exact resampler."""

    kind: Literal["none"] = Field(
        description="`none`: lossless with the rule ratio and the resampler optimal, waterfill or residual."
    )


class Custom(Section):
    """omega as given, one value per draft position."""

    kind: Literal["custom"] = Field(description="`custom`: a list of omegas.")
    values: Annotated[tuple[Annotated[float, Strict(), Within(limits.OMEGA)], ...], Strict(False)] = Field(
        min_length=1, description="omega_1..omega_L, draft.length values."
    )
    floor: OptionalFloor = Field(default=None, description=_FLOOR)


Schedule = Annotated[Exponential | Linear | Uniform | Excess | NoRelaxation | Custom, Field(discriminator="kind")]


class Resampler(Section):
    """Distribution that a token is drawn from after a rejection."""

    kind: Literal["optimal", "waterfill", "residual", "lantern", "target"] = Field(
        default="optimal",
        description="`optimal`: G* = Norm([P - min(Q, omega P)]+), exact where omega <= 1. `waterfill`: the same "
        "acceptance and the same distance to P, with the least KL. For comparison: `residual` (the classic "
        "Norm([P - Q]+)), exact where omega = 1 alone; `target` (P itself) and `lantern` (LANTERN's own), never exact. "
        "The rule synthetic ignores it and draws from P.",
    )


Neighbours = Annotated[
    int,
    Within(limits.NEIGHBOURS),
    Field(description="Number of nearest codes that a token borrows from (k); at most image.neighbours."),
]


class RatioRule(Section):
    """Accept with min(1, omega P(x) / Q(x)), the paper's rule."""

    rule: Literal["ratio"] = Field(description="`ratio`: the paper's rule.")


class Lantern(Section):
    """LANTERN: accept with min(1, (P(x) + c(x)) / Q(x)), c borrowed from the codes nearest to x. Requires schedule
    none."""

    rule: Literal["lantern"] = Field(description="`lantern`: LANTERN's rule.")
    bound: Probability = Field(description="Maximum probability that a token borrows: c(x) <= bound.")
    neighbours: Neighbours


class LanternPP(Section):
    """LANTERN++: as LANTERN, but the bound is a multiple of the token's probability. Requires schedule none."""

    rule: Literal["lantern_pp"] = Field(description="`lantern_pp`: LANTERN++'s rule.")
    factor: Annotated[float, Within(limits.FACTOR)] = Field(description="c(x) <= (factor - 1) P(x). 1 is lossless.")
    neighbours: Neighbours


class Synthetic(Section):
    """Accept at fixed rates, independent of the models: for timing without trained weights. Requires schedule none."""

    rule: Literal["synthetic"] = Field(description="`synthetic`: fixed rates.")
    rates: Annotated[tuple[Annotated[float, Strict(), Within(limits.PROBABILITY)], ...], Strict(False)] = Field(
        min_length=1, description="Acceptance rate of each draft position, draft.length values."
    )


class PerPosition(Section):
    """Judge each draft by itself and keep them all, replaced where they were rejected: SSD's relaxed mode, for row
    heads (draft: {model: rows}). Requires schedule none."""

    rule: Literal["per_position"] = Field(description="`per_position`: no rejection ends a round.")
    refinements: Annotated[int, Within(limits.REFINEMENTS)] = Field(
        default=1,
        description="How often the target judges a round's drafts before they all become tokens. 0 keeps them as they "
        "were drafted; as many as there are drafts are lossless.",
    )


Acceptance = Annotated[RatioRule | Lantern | LanternPP | PerPosition | Synthetic, Field(discriminator="rule")]


class SamplingSection(Section):
    """Logit processing, the same for P and Q: CFG, temperature, top-k, top-p, softmax."""

    cfg_scale: Annotated[float, Within(limits.CFG_SCALE)] = Field(
        default=1.0,
        description="Classifier-free guidance: uncond + scale * (cond - uncond). 1 is no guidance; LlamaGen guides "
        "only above 1, so smaller values are refused rather than ignored.",
    )
    temperature: Annotated[float, Within(limits.TEMPERATURE)] = Field(
        default=1.0, description="Sampling temperature; divides the logits. 0 is greedy."
    )
    top_k: Annotated[int, Within(limits.TOP_K)] = Field(
        default=0, description="Keep the k most probable tokens, ties included; 0 keeps all."
    )
    top_p: Annotated[float, Within(limits.TOP_P)] = Field(
        default=1.0, description="Keep the smallest set of tokens with this total probability; 1 keeps all."
    )
    cfg_interval: Annotated[int, Within(limits.CFG_INTERVAL)] = Field(
        default=-1,
        description="Last decode step with guidance, counted from 0 after the first token: image tokens up to "
        "cfg_interval + 1 are guided, later ones are not. -1 guides all (LlamaGen's cfg_interval).",
    )


class Pacing(Section):
    """How many tokens a round drafts. Changes the speed, never the output distribution of an exact rule."""

    kind: Literal["auto", "manual"] = Field(
        default="auto",
        description="`auto`: as many drafts in each round as are fastest on this machine with this number of images at "
        "once, up to draft.length, or none. They are tried once and recorded. `manual`: draft.length drafts in each "
        "round, unless a threshold stops it. A threshold selects `manual`.",
    )
    confidence: Probability = Field(
        default=0.0,
        description="Skip drafting unless the target's top probability for the previous token is at least this: where "
        "it is lower, drafts are mostly rejected. 0 always drafts.",
    )
    draft_confidence: Probability = Field(
        default=0.0,
        description="Stop drafting before the first token whose top draft probability is less than this "
        "value: the target then steps fewer positions. 0 never stops.",
    )

    @model_validator(mode="before")
    @classmethod
    def _a_threshold_is_manual(cls, data: Any) -> Any:
        if (
            isinstance(data, dict)
            and "kind" not in data
            and any(data.get(key) for key in ("confidence", "draft_confidence"))
        ):
            return {"kind": "manual", **data}
        return data

    @model_validator(mode="after")
    def _auto_has_no_threshold(self) -> Pacing:
        if self.kind == "auto" and (self.confidence or self.draft_confidence):
            raise complaint("kind manual with a threshold", "auto")
        return self
