"""The published rule for continuous tokens, and the variant in its code: comparisons, both biased. No engine uses them.

Source: arXiv 2411.11925. Restated from a description of its text and of its code, at omega = 1.

- The paper's ratio is that of the last step times a factor Sigma. We read it as the ratio of the intermediate steps'
  densities at the shared noise: equal noise has equal exponents, so Sigma is the product over these steps of
  (s_q / s_p)^d. It is 1 where one schedule fixes all deviations, and the rule is the exact one then, but for its bound
  of 100 tries. Where the deviations are learned, or the two schedules differ, it is not 1: the shared noise is given
  before the last step, and its density has no place in the ratio of two draws from the last step.
- Their code also divides the exponents by a temperature of 42, uses variances where standard deviations belong, and
  returns the last try, or zeros, where 100 tries fail.

Knows numbers. Does not know heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from coolsd_rt.law.continuous.gaussians import RatioForm
from coolsd_rt.law.continuous.quadrature import Fallback, ScalarRule

TRIES = 100
TEMPERATURE = 42.0


def log_sigma(target: Sequence[float], draft: Sequence[float], channels: int = 1) -> float:
    """Return the log of the factor Sigma from both models' deviations in the intermediate steps, in their order."""
    return channels * math.fsum(math.log(q / p) for p, q in zip(target, draft, strict=True))


def paper_rule(log_factor: float) -> ScalarRule:
    """Return the paper's rule with log Sigma, for acceptance and tries. Where 100 tries fail it draws from P."""
    return ScalarRule(bound=TRIES, form=RatioForm(log_factor=log_factor))


def code_rule(log_factor: float, fallback: Fallback = "last") -> ScalarRule:
    """Return the rule of the published code with log Sigma. fallback: "last" or "zero"."""
    form = RatioForm(log_factor=log_factor, temperature=TEMPERATURE, squared=True)
    return ScalarRule(bound=TRIES, form=form, fallback=fallback)
