"""The run-time sections of a spec: schedule, resampler, acceptance, sampling, pacing.

Knows keys, ranges and defaults. Does not know what they mean for a probability: `coolsd_rt.law` does.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from coolsd_rt import limits
from coolsd_rt.spec.section import Section, Within

Delta = Annotated[
    float,
    Within(limits.OMEGA),
    Field(
        description="Budget: the mean of omega over the draft's positions, before the floor. 1 is lossless on average "
        "only; above 1 accepts more and drifts more."
    ),
]
_FLOOR = "Least omega of any position. 1.0 costs no quality and accepts more; null is the schedule as it is."
OptionalFloor = Annotated[float, Within(limits.OMEGA)] | None
Decay = Annotated[float, Within(limits.DECAY)]
Probability = Annotated[float, Within(limits.PROBABILITY)]


class Exponential(Section):
    """The paper's annealed schedule: omega_i = delta * exp(-nu * i - mu), with mean delta."""

    kind: Literal["exponential"] = Field(description="`exponential`: falls by the same factor at each position.")
    delta: Delta
    nu: Decay = Field(default=0.7, description="Decay per position. 0 is uniform; the paper uses 0.7.")
    floor: OptionalFloor = Field(default=1.0, description=f"{_FLOOR} null is the paper's own.")


class Linear(Section):
    """omega falls on a straight line, with mean delta."""

    kind: Literal["linear"] = Field(description="`linear`: falls by the same amount at each position.")
    delta: Delta
    floor: OptionalFloor = Field(default=1.0, description=_FLOOR)


class Uniform(Section):
    """omega_i = delta at every position (the paper's UniformRSD)."""

    kind: Literal["uniform"] = Field(description="`uniform`: the same omega at each position.")
    delta: Delta
    floor: OptionalFloor = Field(default=None, description=_FLOOR)


class Excess(Section):
    """omega_i = 1 + beta * exp(-nu * (i - 1)): never under 1, and both uniform and annealed schedules are near it."""

    kind: Literal["excess"] = Field(description="`excess`: what is above 1 falls by the same factor at each position.")
    beta: Annotated[float, Within(limits.OMEGA)] = Field(description="What the first omega has above 1. 0 is lossless.")
    nu: Decay = Field(default=0.7, description="Decay per position of what is above 1. 0 is uniform.")


class NoRelaxation(Section):
    """omega_i = 1: classic speculative decoding, lossless."""

    kind: Literal["none"] = Field(description="`none`: lossless.")


class Custom(Section):
    """omega as given, one value a draft position."""

    kind: Literal["custom"] = Field(description="`custom`: a list of omegas.")
    values: Annotated[tuple[Annotated[float, Strict(), Within(limits.OMEGA)], ...], Strict(False)] = Field(
        min_length=1, description="omega_1..omega_L, as many as draft.length."
    )
    floor: OptionalFloor = Field(default=None, description=_FLOOR)


Schedule = Annotated[Exponential | Linear | Uniform | Excess | NoRelaxation | Custom, Field(discriminator="kind")]


class Resampler(Section):
    """What is drawn after a rejection."""

    kind: Literal["optimal", "waterfill", "residual", "lantern", "target"] = Field(
        default="optimal",
        description="`optimal`: G* = Norm([P - min(Q, omega P)]+), exact where omega <= 1. `waterfill`: the same "
        "acceptance and the same distance to P, with the least KL. `residual` (the classic Norm([P - Q]+)) and "
        "`target` (P itself) are biased where omega < 1 and exist for comparison, as does `lantern`, LANTERN's own. "
        "The rule synthetic ignores it and draws from P.",
    )


Neighbours = Annotated[
    int,
    Within(limits.NEIGHBOURS),
    Field(description="How many of the nearest codes may lend (k); at most image.neighbours."),
]


class RatioRule(Section):
    """Accept with min(1, omega P(x) / Q(x)), the paper's rule."""

    rule: Literal["ratio"] = Field(description="`ratio`: the paper's rule.")


class Lantern(Section):
    """LANTERN: accept with min(1, (P(x) + c(x)) / Q(x)), c borrowed from the codes nearest to x. With schedule none."""

    rule: Literal["lantern"] = Field(description="`lantern`: LANTERN's rule.")
    bound: Probability = Field(description="Most probability that a token may borrow: c(x) <= bound.")
    neighbours: Neighbours


class LanternPP(Section):
    """LANTERN++: as LANTERN, but what a token may borrow is a multiple of its own probability. With schedule none."""

    rule: Literal["lantern_pp"] = Field(description="`lantern_pp`: LANTERN++'s rule.")
    factor: Annotated[float, Within(limits.FACTOR)] = Field(description="c(x) <= (factor - 1) P(x). 1 is lossless.")
    neighbours: Neighbours


class Synthetic(Section):
    """Accept at fixed rates whatever the models say: for timing without trained weights. With schedule none."""

    rule: Literal["synthetic"] = Field(description="`synthetic`: fixed rates.")
    rates: Annotated[tuple[Annotated[float, Strict(), Within(limits.PROBABILITY)], ...], Strict(False)] = Field(
        min_length=1, description="Acceptance rate of each draft position, as many as draft.length."
    )


Acceptance = Annotated[RatioRule | Lantern | LanternPP | Synthetic, Field(discriminator="rule")]


class SamplingSection(Section):
    """Logit processing, the same for P and Q: CFG, temperature, top-k, top-p, softmax."""

    cfg_scale: Annotated[float, Within(limits.CFG_SCALE)] = Field(
        default=1.0,
        description="Classifier-free guidance: uncond + scale * (cond - uncond). 1 is no guidance; LlamaGen guides "
        "only above 1, so smaller values are refused rather than ignored.",
    )
    temperature: Annotated[float, Within(limits.TEMPERATURE)] = Field(default=1.0, description="Divides the logits.")
    top_k: Annotated[int, Within(limits.TOP_K)] = Field(
        default=0, description="Keep the k most probable tokens, ties included; 0 keeps all."
    )
    top_p: Annotated[float, Within(limits.TOP_P)] = Field(
        default=1.0, description="Keep the smallest set of tokens with this mass; 1 keeps all."
    )
    cfg_interval: Annotated[int, Within(limits.CFG_INTERVAL)] = Field(
        default=-1,
        description="Last decode step with guidance, counted from 0 after the first token: image tokens up to "
        "cfg_interval + 1 are guided, later ones are not. -1 guides all (LlamaGen's cfg_interval).",
    )


class Pacing(Section):
    """When a round drafts at all. Changes the speed, never the law of the output."""

    confidence: Probability = Field(
        default=0.0,
        description="Draft only where the target gave its last token's likeliest code at least this probability: where "
        "it is unsure the draft is mostly rejected. 0 always drafts.",
    )
    draft_confidence: Probability = Field(
        default=0.0,
        description="End a round's drafts before the first one to whose likeliest code the draft gives less than this "
        "probability: the target is then stepped over fewer positions. 0 never ends them.",
    )
