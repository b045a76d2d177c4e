"""The law for continuous tokens: each token is a vector in R^d, and P and Q are Gaussians of a last denoising step.

Knows arrays and densities; all functions are pure. Does not know diffusion heads, engines or specs: the rounds are
in `coolsd_rt.runtime.continuous`, and no engine draws them yet. Proofs are in docs/theory.md.
"""

from coolsd_rt.law.continuous.closed_forms import reflect, replace_along, share_a_deviation
from coolsd_rt.law.continuous.figures import PositionFigures, estimate, figures
from coolsd_rt.law.continuous.gaussians import LastStep, log_density, log_ratio
from coolsd_rt.law.continuous.retries import MAX_TRIES, Redrawn, RetryNumbers, redraw
from coolsd_rt.law.continuous.rule import keep_probability, retry_probability
from coolsd_rt.law.continuous.verify import PositionVerdict, verify_position

__all__ = [
    "MAX_TRIES",
    "LastStep",
    "PositionFigures",
    "PositionVerdict",
    "Redrawn",
    "RetryNumbers",
    "estimate",
    "figures",
    "keep_probability",
    "log_density",
    "log_ratio",
    "redraw",
    "reflect",
    "replace_along",
    "retry_probability",
    "share_a_deviation",
    "verify_position",
]
