"""The exact distance of any rule of a round from the target, by the same enumeration for all of them.

A rule says which token sequences its round can commit, and with which probability. The first L of them, continued by
the target where a round committed fewer, are the window's tokens: their joint distribution is compared with the
target's own. So the distance is that of one round alone, and rules of different accept lengths are compared on the
same L tokens.

Knows joint distributions. Does not know rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from coolsd_rt.law.exact import (
    Context,
    Joint,
    Model,
    completed,
    kl,
    mean_length,
    round_law,
    target_law,
    total_variation,
)
from coolsd_rt.law.rules import Law


class RoundRule(Protocol):
    """A rule of a round: how drafts become tokens."""

    @property
    def length(self) -> int:
        """Number of tokens L of the window that is compared."""

    @property
    def passes(self) -> int:
        """Target passes of a round."""

    def emitted(self, target: Model, draft: Model, context: Context = ()) -> Joint:
        """Return the probability of each token sequence that a round after `context` can commit."""


@dataclass(frozen=True)
class Chain:
    """The rounds of a `Law`: COOL-SD's rule, or LANTERN's with its own residual."""

    law: Law

    @property
    def length(self) -> int:
        """The draft length."""
        return self.law.length

    @property
    def passes(self) -> int:
        """Target passes of a round."""
        return 1

    def emitted(self, target: Model, draft: Model, context: Context = ()) -> Joint:
        """Return the probability of each token sequence that a round can commit, of 1 to L + 1 tokens."""
        return round_law(target, draft, self.law, context)


@dataclass(frozen=True)
class RuleDistance:
    """What one round of a rule amounts to, exactly.

    tv: total variation between the joint distributions of the window's L tokens.
    kl: divergence of the rule's from the target's, KL(out || P), nats; infinite where the rule leaves P's support.
    kl_of_target: the other direction, KL(P || out); infinite where the rule never commits what the target would.
    accept_length: expected tokens a target pass.
    """

    tv: float
    kl: float
    kl_of_target: float
    accept_length: float


def distance(rule: RoundRule, target: Model, draft: Model, context: Context = ()) -> RuleDistance:
    """Compute the distance of one round of `rule` after `context` from the target, and its accept length."""
    emitted = rule.emitted(target, draft, context)
    out, truth = completed(target, emitted, rule.length, context), target_law(target, rule.length, context)
    divergences = (max(0.0, kl(out, truth)), max(0.0, kl(truth, out)))  # rounding can end below 0
    return RuleDistance(total_variation(out, truth), *divergences, mean_length(emitted) / rule.passes)
