"""Relaxation schedules: the values omega_1 .. omega_L of the draft positions.

Knows numbers only. Does not know where delta and nu were written down, nor the rule that uses the omegas.

Every family with a delta is mean-normalised, `mean(omega) = delta`, so that one delta means the same relaxation budget
whatever the shape. All values are float64. Source: arXiv 2601.09212 for the annealed schedule and its UniformRSD
baseline; the floor and `excess` are this project's own. A floor is applied after the normalisation, so the mean grows:
under the optimal residual a position with omega < 1 is already lossless, so raising omega to 1 keeps it lossless and
accepts more drafts. `excess` needs no floor: it falls towards 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from coolsd_rt.errors import UserError
from coolsd_rt.limits import DECAY, OMEGA
from coolsd_rt.ranges import Range

Schedule = Literal["exponential", "linear", "uniform", "excess", "none", "custom"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
DEFAULT_NU = 0.7  # the paper's decay


def make_omegas(
    kind: Schedule,
    length: int,
    *,
    delta: float = 1.0,
    nu: float = DEFAULT_NU,
    beta: float = 0.0,
    values: Sequence[float] | None = None,
    floor: float | None = None,
) -> tuple[float, ...]:
    """Compute omega_1 .. omega_length of one schedule family.

    delta: mean of omega before the floor (exponential, linear, uniform).
    nu: decay per position (exponential, excess).
    beta: excess of omega_1 over 1 (excess).
    values: the omegas themselves (custom).
    floor: applies `max(floor, omega_i)` to any family.

    Raises UserError: an unknown kind, a negative length, a number outside `limits.OMEGA` (nu: `limits.DECAY`), a list
    of the wrong length.
    """
    one_of("schedule", kind, SCHEDULES)
    if length < 0:
        raise UserError("the draft length", expected="0 or more", found=str(length))
    if kind == "exponential":
        omegas = exponential(length, delta, nu)
    elif kind == "linear":
        omegas = linear(length, delta)
    elif kind == "uniform":
        omegas = uniform(length, delta)
    elif kind == "excess":
        omegas = excess(length, beta, nu)
    elif kind == "none":
        omegas = (1.0,) * length
    else:
        omegas = custom(length, values)
    return omegas if floor is None else raised(omegas, floor)


def exponential(length: int, delta: float, nu: float = DEFAULT_NU) -> tuple[float, ...]:
    """Compute the paper's schedule, omega_i = delta * exp(-nu * i - mu), with mu such that the mean is delta.

    The first weight is exp(0) = 1, so nothing overflows; far positions may underflow to 0, which means "never accept".
    """
    in_range("delta", delta, OMEGA)
    in_range("nu", nu, DECAY)
    return _normalised([math.exp(-nu * i) for i in range(length)], delta)


def linear(length: int, delta: float) -> tuple[float, ...]:
    """Compute omegas that fall in equal steps: omega_i = delta * 2 * (L + 1 - i) / (L + 1).

    omega_{L+1} would be 0.
    """
    in_range("delta", delta, OMEGA)
    return _normalised([float(length - i) for i in range(length)], delta)


def uniform(length: int, delta: float) -> tuple[float, ...]:
    """Compute omega_i = delta, the paper's UniformRSD."""
    in_range("delta", delta, OMEGA)
    return (float(delta),) * length


def excess(length: int, beta: float, nu: float = DEFAULT_NU) -> tuple[float, ...]:
    """Compute omega_i = 1 + beta * exp(-nu * (i - 1)): most relaxed at first, never below 1. nu = 0 is uniform."""
    in_range("beta", beta, OMEGA)
    in_range("nu", nu, DECAY)
    return tuple(1.0 + beta * math.exp(-nu * i) for i in range(length))


def custom(length: int, values: Sequence[float] | None) -> tuple[float, ...]:
    """Return the caller's list of omegas, one value per draft position, not normalised.

    Raises UserError: a list of the wrong length, or a value outside `limits.OMEGA`.
    """
    if values is None or len(values) != length:
        found = "no values" if values is None else f"{len(values)} values"
        raise UserError("a custom schedule", expected=f"{length} values, one per draft position", found=found)
    for i, value in enumerate(values, start=1):
        in_range(f"omega {i}", value, OMEGA)
    return tuple(float(v) for v in values)


def raised(omegas: Sequence[float], floor: float) -> tuple[float, ...]:
    """Return max(floor, omega_i) for each omega."""
    in_range("floor", floor, OMEGA)
    return tuple(max(float(floor), omega) for omega in omegas)


def _normalised(weights: list[float], delta: float) -> tuple[float, ...]:
    total = math.fsum(weights)
    return tuple(delta * len(weights) * w / total for w in weights)


def in_range(name: str, value: float, allowed: Range) -> None:
    """Raise UserError unless the number lies in the range; NaN lies in no range."""
    if not allowed.low <= value <= allowed.high:
        raise UserError(name, expected=f"a number from {allowed.low:g} to {allowed.high:g}", found=str(value))


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise UserError unless the value is among those allowed."""
    if value not in allowed:
        raise UserError(f"the {name}", expected=f"one of {', '.join(allowed)}", found=repr(value))
