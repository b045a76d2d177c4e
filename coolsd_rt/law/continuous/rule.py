"""The law of one position for densities: which drafts stay, and which draws from P replace those that do not.

    keep(x)  = min(1, omega P(x) / Q(x))          so that Q keep = min(Q, omega P)
    retry(y) = [1 - min(Q(y) / P(y), omega)]_+    so that P retry = [P - min(Q, omega P)]_+

The second is G* before it is normalised: a draw y of P that stays with probability retry(y) has the law G*. Knows log
ratios. Does not know where they come from, and draws nothing. Source: arXiv 2601.09212, the relaxed acceptance rule and
its residual; proofs are in docs/theory.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coolsd_rt.arrays import Floats64
from coolsd_rt.errors import UserError
from coolsd_rt.limits import LAW_OMEGA


def keep_probability(log_ratio: Floats64, omega: Any) -> Floats64:
    """Return min(1, omega P/Q), elementwise, from log P/Q. It is compared with a uniform u in [0, 1): keep if u < it.

    Where omega P/Q underflows it is 0, and the draft is rejected even at u = 0.
    """
    return np.asarray(np.exp(np.minimum(0.0, log_ratio + log_omega(omega))))


def retry_probability(log_ratio: Floats64, omega: Any) -> Floats64:
    """Return [1 - min(Q/P, omega)]_+, elementwise, from log P/Q."""
    return np.asarray(np.maximum(0.0, -np.expm1(np.minimum(-log_ratio, log_omega(omega)))))


def log_omega(omega: Any) -> Floats64:
    """Return log omega, -inf for 0. Raises UserError for an omega out of `limits.LAW_OMEGA`."""
    values = np.asarray(omega, np.float64)
    if not ((values >= LAW_OMEGA.low) & (values <= LAW_OMEGA.high)).all():
        found = ", ".join(f"{value:g}" for value in np.unique(values)[:4])
        raise UserError("omega", expected=f"from {LAW_OMEGA.low:g} to {LAW_OMEGA.high:g}", found=found)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values))
