"""Verify one position of continuous drafts: keep or replace, each row by the way that fits its two Gaussians.

    keep                              u_accept < min(1, omega P(x) / Q(x))
    replace: equal deviations         omega = 1: `reflect`, no random number; other omegas: `replace_along`, one uniform
             different deviations     `redraw`: rejection from P, bounded and counted

Knows arrays that are passed in. Does not know heads, rounds, or the generator. The rounds are in
`coolsd_rt.runtime.continuous`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from coolsd_rt.arrays import Bools, Floats64, Ints
from coolsd_rt.errors import CoolsdError
from coolsd_rt.law.continuous.closed_forms import reflect, replace_along, share_a_deviation
from coolsd_rt.law.continuous.gaussians import LastStep, log_ratio
from coolsd_rt.law.continuous.retries import MAX_TRIES, RetryNumbers, redraw
from coolsd_rt.law.continuous.rule import keep_probability


@dataclass(frozen=True)
class PositionVerdict:
    """What became of R drafts.

    tokens: float64 [R, d], the draft where it is accepted, else its replacement.
    accepted: bool [R].
    tries: int64 [R], draws from P; 0 where none was needed.
    fallback: bool [R], where the bound on tries was reached: the token is a draw from P in the place of G*.
    """

    tokens: Floats64
    accepted: Bools
    tries: Ints
    fallback: Bools


def verify_position(
    x: Floats64,
    target: LastStep,
    draft: LastStep,
    omega: Any,
    uniforms: Floats64,
    retries: RetryNumbers,
    bound: int = MAX_TRIES,
) -> PositionVerdict:
    """Keep or replace drafts x [R, d], each drawn from its Q.

    omega: a number or [R]. uniforms: float64 [R, 2] in [0, 1), of acceptance and of the replacement.

    Raises CoolsdError for drafts that are not finite.
    """
    if not np.isfinite(x).all():
        raise CoolsdError("continuous drafts", expected="finite numbers", found="NaN or infinity")
    omegas = np.broadcast_to(np.asarray(omega, np.float64), (len(x),))
    accepted = np.asarray(uniforms[:, 0] < keep_probability(log_ratio(x, target, draft), omegas))
    tokens, tries, fallback = x.copy(), np.zeros(len(x), np.int64), np.zeros(len(x), np.bool_)
    equal = share_a_deviation(target, draft)

    rows = np.flatnonzero(~accepted & equal & (omegas == 1))
    tokens[rows] = reflect(x[rows], target.rows(rows), draft.rows(rows))

    rows = np.flatnonzero(~accepted & equal & (omegas != 1))
    tokens[rows] = replace_along(x[rows], target.rows(rows), draft.rows(rows), omegas[rows], uniforms[rows, 1])

    rows = np.flatnonzero(~accepted & ~equal)
    found = redraw(target.rows(rows), draft.rows(rows), omegas[rows], lambda r, k: retries(rows[r], k), bound)
    tokens[rows], tries[rows], fallback[rows] = found.tokens, found.tries, found.fallback
    return PositionVerdict(tokens, accepted, tries, fallback)
