"""Options of verbs that draw: the law, the drafts and the sampling, which replace the spec's.

Knows click and the keys of a spec. Does not know engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from coolsd_rt import limits
from coolsd_rt.cli.numbers import Numbers, number
from coolsd_rt.law import RESAMPLERS, RULES, SCHEDULES
from coolsd_rt.workflows.prepared import DRAFTS

F = TypeVar("F", bound=Callable[..., Any])

KEYS = {
    "schedule": "schedule.kind",
    "delta": "schedule.delta",
    "nu": "schedule.nu",
    "beta": "schedule.beta",
    "floor": "schedule.floor",
    "values": "schedule.values",
    "resampler": "resampler.kind",
    "rule": "acceptance.rule",
    "bound": "acceptance.bound",
    "factor": "acceptance.factor",
    "neighbours": "acceptance.neighbours",
    "refinements": "acceptance.refinements",
    "pacing": "pacing.kind",
    "confidence": "pacing.confidence",
    "draft_confidence": "pacing.draft_confidence",
    "cfg_scale": "sampling.cfg_scale",
    "cfg_interval": "sampling.cfg_interval",
    "temperature": "sampling.temperature",
    "top_k": "sampling.top_k",
    "top_p": "sampling.top_p",
}
"""Options to the run-time keys of the spec that they replace. Their values are checked by the spec's own models."""

_OPTIONS = (
    click.option(
        "--delta",
        type=number(limits.OMEGA),
        help="Relaxation budget: the mean of omega before the floor (schedules exponential, linear and uniform). The "
        "paper "
        "uses 1.1.",
    ),
    click.option(
        "--schedule",
        type=click.Choice(SCHEDULES),
        help="Relaxation schedule; none is lossless with the rule ratio and the resampler optimal, waterfill or "
        "residual.",
    ),
    click.option(
        "--nu", type=number(limits.DECAY), help="Decay per draft position (schedules exponential and excess)."
    ),
    click.option("--beta", type=number(limits.OMEGA), help="First omega minus 1 (schedule excess)."),
    click.option(
        "--floor",
        type=number(limits.OMEGA),
        help="Lower bound of omega at every position; 0 sets no bound (schedules exponential, linear, uniform and "
        "custom).",
    ),
    click.option(
        "--values",
        metavar="W,W,...",
        type=Numbers(limits.OMEGA),
        help="All omegas, one per draft position (schedule custom).",
    ),
    click.option(
        "--resampler", type=click.Choice(RESAMPLERS), help="Distribution that a token is drawn from after a rejection."
    ),
    click.option(
        "--rule",
        type=click.Choice([r for r in RULES if r != "synthetic"]),
        help="Acceptance rule of draft tokens. lantern (needs --bound and --neighbours) and lantern_pp (needs "
        "--factor and "
        "--neighbours) relax by themselves, and so does per_position (row heads only): they replace the spec's "
        "schedule by none and refuse another one.",
    ),
    click.option(
        "--bound",
        type=number(limits.PROBABILITY),
        help="Maximum probability that a token borrows from its neighbours (rule lantern).",
    ),
    click.option(
        "--factor",
        type=number(limits.FACTOR),
        help="Maximum acceptance mass of a token, as a multiple of its probability (rule lantern_pp).",
    ),
    click.option(
        "--neighbours",
        type=number(limits.NEIGHBOURS),
        help="Number of nearest codes that a token borrows from (lantern rules).",
    ),
    click.option(
        "--refinements",
        type=number(limits.REFINEMENTS),
        help="How often the target judges a round's drafts before they all become tokens (rule per_position).",
    ),
    click.option(
        "--draft-length",
        type=number(limits.DRAFT_LENGTH, "use --plain to decode without a draft"),
        help="Tokens drafted per round, at most under --pacing auto; a length other than the built one runs each draft "
        "step separately.",
    ),
    click.option(
        "--plain",
        is_flag=True,
        help="Decode with the target alone, one token per step; refuses options of drafts, schedule, rule, resampler "
        "and "
        "pacing.",
    ),
    click.option(
        "--pacing",
        type=click.Choice(["auto", "manual"]),
        help="How much a round drafts: auto, what is fastest on this machine with this number of images at once, up "
        "to the "
        "draft length (tried once and recorded); manual, the draft length in every round, up to the two thresholds.",
    ),
    click.option(
        "--confidence",
        type=number(limits.PROBABILITY),
        help="Skip drafting unless the target's top probability for the previous token is at least this; 0 always "
        "drafts. "
        "Selects --pacing manual.",
    ),
    click.option(
        "--draft-confidence",
        type=number(limits.PROBABILITY),
        help="Stop drafting before a token whose top draft probability is below this; 0 never stops. "
        "Selects --pacing manual.",
    ),
    click.option(
        "--draft",
        type=click.Choice(DRAFTS),
        help="Draft from the target's distributions of the previous round (Jacobi decoding) instead of the draft "
        "model; "
        "jacobi-coupled keeps drafts where the old and the new distribution agree, jacobi-gumbel by one noise for each "
        "position; ngram repeats what followed the last tokens the time before. Drafts 15 tokens, or 5 with ngram, "
        "unless --draft-length is given, and drops the spec's thresholds.",
    ),
    click.option(
        "--cfg-scale", type=number(limits.CFG_SCALE), help="Classifier-free guidance scale; 1 disables guidance."
    ),
    click.option(
        "--cfg-interval", type=number(limits.CFG_INTERVAL), help="Last decode step with guidance; -1 guides every step."
    ),
    click.option(
        "--temperature", type=number(limits.TEMPERATURE), help="Sampling temperature; divides the logits. 0 is greedy."
    ),
    click.option("--top-k", type=number(limits.TOP_K), help="Keep the k most probable tokens; 0 keeps all."),
    click.option(
        "--top-p",
        type=number(limits.TOP_P),
        help="Keep the smallest set of most probable tokens with this total probability; 1 keeps all.",
    ),
)


def decoding_options(function: F) -> F:
    """Add the options; passed as `draft_length`, `plain`, `draft`, and those of `KEYS`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def overrides_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec keys that were given. values: of the options of `KEYS`, None where not given."""
    return {KEYS[name]: value for name, value in values.items() if value is not None}
