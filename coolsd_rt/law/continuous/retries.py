"""G* by rejection from P, for Gaussians of any two deviations: draw y from P, keep it with `retry_probability`.

A try is kept with probability M = integral of [P - min(Q, omega P)]_+. For omega <= 1 M is the probability that a draft
is rejected, so that a position costs one try on average, kept drafts included, and 1 / M once a draft is rejected. For
omega > 1 M is TV(P, Q) and larger than that probability: the tries are fewer.

After `bound` tries the token is a fresh draw from P, and that is counted. (The last try would be worse: it is known to
lie where it was not kept.) A position falls back with probability P(rejected) (1 - M)^bound; for omega <= 1 its law is
then at a distance of at most M (1 - M)^(bound + 1) < 1 / (e (bound + 1)) from P.

Knows Gaussians. Does not know the generator: the numbers of a try belong to a row and a try, so that what a row draws
does not depend on the rows beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from coolsd_rt.arrays import Bools, Floats64, Ints
from coolsd_rt.errors import UserError
from coolsd_rt.law.continuous.gaussians import LastStep, log_ratio
from coolsd_rt.law.continuous.rule import retry_probability

MAX_TRIES = 10_000
"""Default bound: a distance of at most 3.7e-5 a token, where M is near 1e-4, and far less for any other M."""


class RetryNumbers(Protocol):
    """Random numbers by row and try. `coolsd_rt.runtime.gaussians` has those of a seed and a position."""

    def __call__(self, rows: Ints, attempt: int) -> tuple[Floats64, Floats64]:
        """Return standard normal noise [n, d] and uniforms in [0, 1) [n], of the rows int64 [n], at try `attempt`."""


@dataclass(frozen=True)
class Redrawn:
    """Tokens [R, d] that replace rejected drafts; tries of each, int64 [R]; and where the bound was reached."""

    tokens: Floats64
    tries: Ints
    fallback: Bools


def redraw(target: LastStep, draft: LastStep, omega: Any, numbers: RetryNumbers, bound: int = MAX_TRIES) -> Redrawn:
    """Draw from G* for every row. omega: a number or [R]. bound: most tries of a row, from 1.

    Asks `numbers` for the tries 0, 1, ... of the rows that are still open, and for try `bound` where it falls back.
    """
    if bound < 1:
        raise UserError("the bound on tries", expected="1 or more", found=str(bound))
    count = len(target.mean)
    omegas = np.broadcast_to(np.asarray(omega, np.float64), (count,))
    tokens, tries, open_ = np.empty_like(target.mean), np.zeros(count, np.int64), np.arange(count)
    for attempt in range(bound):
        if not len(open_):
            break
        noise, u = numbers(open_, attempt)
        mine = target.rows(open_)
        y = mine.at(noise)
        kept = u < retry_probability(log_ratio(y, mine, draft.rows(open_)), omegas[open_])
        tries[open_] += 1
        tokens[open_[kept]] = y[kept]
        open_ = open_[~kept]
    fallback = np.zeros(count, np.bool_)
    if len(open_):
        tokens[open_], fallback[open_] = target.rows(open_).at(numbers(open_, bound)[0]), True
    return Redrawn(tokens, tries, fallback)
