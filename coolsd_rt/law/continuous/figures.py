"""What a position of continuous tokens is expected to do: acceptance, tries, and the distance of its law from P.

Equal deviations: exact. All depends on t alone (`coolsd_rt.law.continuous.closed_forms`), N(0, 1) under Q and
N(delta, 1) under P. With t_omega where omega P = Q, and m where P = Q, t_omega < m for omega > 1:

    t < t_omega        Q > omega P     out = omega P
    t_omega < t < m    Q between       out = Q
    t > m              Q < P           out = Q + share (P - Q),  share = P(rejected) / TV(P, Q)

Acceptance and TV are sums of normal tails; KL is an integral of one variable for the last piece, by Gauss-Legendre, and
closed for the others. At omega <= 1 out = P, TV = KL = 0. Other deviations: unbiased estimates from draws of P.

Knows Gaussians. Does not know tokens, or how they are drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from coolsd_rt.arrays import Floats64
from coolsd_rt.errors import UserError
from coolsd_rt.law.continuous.closed_forms import ResidualLine, crossing, share_a_deviation
from coolsd_rt.law.continuous.gaussians import LastStep, apart, log_ratio, upper_tail
from coolsd_rt.law.continuous.rule import log_omega

_PIECES, _ORDER = 24, 20  # of the integral for KL, 12 deviations wide


@dataclass(frozen=True)
class PositionFigures:
    """Figures of R positions, float64 [R] each, given the states before the last step.

    acceptance: probability that a draft is kept.
    retry: probability that a draw of P stays as a draw of G*: a rejection by `redraw` takes 1 / retry tries on average.
    tv: total variation of the token's law from P.
    kl: KL(token's law || P) in nats; None if it is estimated, where no unbiased estimate is known.
    errors: standard errors of the three before; None if they are exact.
    """

    acceptance: Floats64
    retry: Floats64
    tv: Floats64
    kl: Floats64 | None = None
    errors: tuple[Floats64, Floats64, Floats64] | None = None


def figures(target: LastStep, draft: LastStep, omega: Any) -> PositionFigures:
    """Return the exact figures. Raises UserError unless every row has equal deviations. omega: a number or [R]."""
    if not share_a_deviation(target, draft).all():
        fix = "use `estimate` for other deviations"
        raise UserError("exact figures", expected="equal deviations of target and draft", found="others", fix=fix)
    delta = apart(target, draft)[1] / draft.deviation
    omegas = np.broadcast_to(np.asarray(omega, np.float64), delta.shape)
    logs = log_omega(omegas)
    at, middle = crossing(delta, logs), 0.5 * delta
    acceptance = omegas * upper_tail(delta - at) + upper_tail(at)
    retry = ResidualLine.of(delta, omegas).weight
    at = np.minimum(at, middle)  # at omega <= 1 the two pieces below are empty
    over = np.maximum(omegas, 1.0)
    between = np.maximum(0.0, (upper_tail(at) - upper_tail(middle)) - (upper_tail(at - delta) - upper_tail(-middle)))
    capped = upper_tail(delta - at)
    lossless = (omegas <= 1) | (delta == 0)
    tv = np.where(lossless, 0.0, (over - 1) * capped + between)
    kl = over * np.log(over) * capped + _kl_between(delta, at, middle) + _kl_beyond(delta, omegas, at, retry)
    return PositionFigures(acceptance, retry, tv, np.where(lossless, 0.0, np.maximum(0.0, kl)))


def estimate(target: LastStep, draft: LastStep, omega: Any, noise: Floats64) -> PositionFigures:
    """Return unbiased estimates for any deviations, from standard normal noise [n, R, d] with n >= 2.

    With y drawn from P and c = min(Q(y) / P(y), omega): acceptance is E c, retry E [1 - c]_+, and TV of the token's law
    E [c - 1]_+. All lie between 0 and max(1, omega), so that their standard errors are sound.
    """
    logs = np.minimum(-log_ratio(target.at(noise), target, draft), log_omega(omega))
    above, below = np.maximum(0.0, np.expm1(logs)), np.maximum(0.0, -np.expm1(logs))
    values = np.exp(logs), below, above
    acceptance, retry, tv = (np.asarray(value.mean(0)) for value in values)
    errors = [np.asarray(value.std(0, ddof=1) / math.sqrt(len(noise))) for value in values]
    return PositionFigures(acceptance, retry, tv, None, (errors[0], errors[1], errors[2]))


def _kl_between(delta: Floats64, at: Floats64, middle: Floats64) -> Floats64:
    """The integral of Q log Q/P from `at` to `middle`: log Q/P is delta^2 / 2 - delta t."""
    start = np.maximum(at, -1e3)  # Q has nothing before; infinity times 0 is NaN
    mass = upper_tail(start) - upper_tail(middle)
    return np.asarray(0.5 * delta**2 * mass - delta * (_normal(start) - _normal(middle)))


def _kl_beyond(delta: Floats64, omegas: Floats64, at: Floats64, retry: Floats64) -> Floats64:
    """The integral of out log out/P beyond the point where P = Q, for omega >= 1."""
    rejected = np.maximum(0.0, upper_tail(-at) - omegas * upper_tail(delta - at))
    share = np.where(retry > 0, rejected / np.where(retry > 0, retry, 1.0), 0.0)
    nodes, weights = np.polynomial.legendre.leggauss(_ORDER)
    inner = (np.arange(_PIECES)[:, None] + 0.5 * (nodes + 1)) / _PIECES
    width = 0.5 * delta + 12  # from delta / 2 to 12 deviations past P's mean
    t = 0.5 * delta[:, None] + width[:, None] * inner.ravel()
    dt = width[:, None] * np.tile(0.5 * weights / _PIECES, _PIECES)
    less = (1 - share[:, None]) * np.expm1(0.5 * delta[:, None] ** 2 - delta[:, None] * t)  # out / P - 1, at most 0
    terms = (1 + less) * np.log1p(np.maximum(less, -1 + 1e-16))
    return np.asarray((_normal(t - delta[:, None]) * terms * dt).sum(-1))


def _normal(x: Floats64) -> Floats64:
    return np.asarray(np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi))
