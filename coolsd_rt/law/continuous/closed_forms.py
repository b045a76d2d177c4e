"""Replacements of a rejected token without a loop, where the two Gaussians have one deviation s.

Then P/Q depends on one coordinate: t = e . (x - mean_q) / s, with e the unit vector from Q's mean to P's and
delta = |mean_p - mean_q| / s, has log P/Q = delta t - delta^2 / 2; it is N(0, 1) under Q and N(delta, 1) under P. The
other coordinates are standard normal under both, whether x is kept or not, and stay as they were drawn.

- `reflect`: omega = 1 only. The mirror image of x in the plane between the means. Source: arXiv 2501.05370.
- `replace_along`: any omega. t is drawn again from G*'s own one-dimensional distribution, by inverting it at a uniform.

Both always end. Knows Gaussians and numbers in [0, 1). Does not know which tokens were rejected: it replaces all rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from coolsd_rt.arrays import Bools, Floats64, Ints
from coolsd_rt.law.continuous.gaussians import LastStep, apart, upper_tail
from coolsd_rt.law.continuous.rule import log_omega

REACH = 40.0  # standard deviations: a normal's tail beyond is below float64's least number
MOST_STEPS = 100  # of the inversion; 7 are common, and 64 halves alone would do
LEAST_STEP = 4e-15


def share_a_deviation(target: LastStep, draft: LastStep) -> Bools:
    """Return where P and Q have the same deviation, to the last bit: bool [R]."""
    return np.asarray(target.deviation == draft.deviation)


def reflect(x: Floats64, target: LastStep, draft: LastStep) -> Floats64:
    """Return the tokens that replace rejected drafts x at omega = 1, [R, d] each: mean_p + s (xi - 2 (xi . e) e).

    xi = (x - mean_q) / s is the draft's noise. A rejected x has the law Norm([Q - P]_+), and its mirror image has
    Norm([P - Q]_+), which is G* for omega = 1 only.
    """
    unit, _ = apart(target, draft)
    noise = draft.noise(x)
    return target.at(noise - 2 * (noise * unit).sum(-1, keepdims=True) * unit)


def replace_along(x: Floats64, target: LastStep, draft: LastStep, omega: Any, u: Floats64) -> Floats64:
    """Return the tokens that replace rejected drafts x at any omega, [R, d] each.

    omega: a number or [R]. u: float64 [R], uniforms in [0, 1) that no other draw uses. Their grain is that of t's
    distribution: with 24 bits, 6e-8. Where P and Q are nearly equal, G* is a difference of nearly equal numbers: its
    distribution function is exact to about 1e-16 over the probability of a rejection, so the token's law to 1e-16.
    """
    unit, length = apart(target, draft)
    line = ResidualLine.of(length / draft.deviation, omega)
    noise = draft.noise(x)
    moved = line.quantile(u) - (noise * unit).sum(-1)
    return draft.at(noise + moved[:, None] * unit)


@dataclass(frozen=True)
class ResidualLine:
    """[P - min(Q, omega P)]_+ along t, before it is normalised, float64 [R] each.

    Its density is `below` times P's for t < edge, and P - Q beyond: below = [1 - omega]_+, and edge is where
    Q = min(1, omega) P, at delta / 2 + [-log omega]_+ / delta.
    """

    delta: Floats64
    below: Floats64
    edge: Floats64

    @staticmethod
    def of(delta: Floats64, omega: Any) -> ResidualLine:
        """Return it for the distance of the means in deviations, [R], and omega, a number or [R]."""
        delta = np.asarray(delta, np.float64)
        below = np.broadcast_to(np.maximum(0.0, 1 - np.asarray(omega, np.float64)), delta.shape)
        return ResidualLine(delta, np.asarray(below), crossing(delta, np.minimum(0.0, log_omega(omega))))

    @property
    def weight(self) -> Floats64:
        """The integral. For omega <= 1 it is the probability of a rejection, for omega >= 1 it is TV(P, Q)."""
        return self.beyond(np.full_like(self.delta, -np.inf))

    def beyond(self, t: Floats64) -> Floats64:
        """Return the integral from t to infinity, [R]."""
        over = np.maximum(t, self.edge)
        tail = upper_tail(over - self.delta)
        gap = np.maximum(0.0, tail - upper_tail(over))
        return np.asarray(gap + self.below * (upper_tail(t - self.delta) - tail))

    def density(self, t: Floats64) -> Floats64:
        """Return the density at t, [R]."""
        p, q = (np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi) for x in (t - self.delta, t))
        return np.asarray(np.where(t < self.edge, self.below * p, np.maximum(0.0, p - q)))

    def rows(self, which: Ints) -> ResidualLine:
        """Return it for some rows."""
        return ResidualLine(self.delta[which], self.below[which], self.edge[which])

    def quantile(self, u: Floats64) -> Floats64:
        """Return the t below which the share u of the integral lies, [R]: Newton's steps, or halves of the interval."""
        left, right = self.delta - REACH, self.delta + REACH
        left = np.where(self.below == 0, np.maximum(left, np.minimum(self.edge, right)), left)
        wanted, t = (1 - u) * self.weight, np.clip(self.delta, left, right)
        open_ = np.arange(len(t))
        for _ in range(MOST_STEPS):
            mine, at = self.rows(open_), t[open_]
            over, slope = mine.beyond(at) - wanted[open_], mine.density(at)
            left[open_], right[open_] = np.where(over > 0, at, left[open_]), np.where(over > 0, right[open_], at)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                new = at + over / slope
            new = np.where((new >= left[open_]) & (new <= right[open_]), new, 0.5 * (left[open_] + right[open_]))
            t[open_] = new
            open_ = open_[np.abs(new - at) > LEAST_STEP * (1 + np.abs(new))]
            if not len(open_):
                break
        return np.asarray(t)


def crossing(delta: Floats64, log_omega: Floats64) -> Floats64:
    """Return the t at which omega P = Q, [R]: omega P is below Q before it. Infinite where they never cross.

    At delta = 0, where P is Q, the sign says which is larger; for omega = 1 any t will do, and it is 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(log_omega == 0, 0.0, -log_omega / delta)
    return np.asarray(0.5 * delta + shift)
