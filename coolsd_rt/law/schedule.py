"""How much each draft position is relaxed: the values omega_1..omega_L.

Knows numbers only. Does not know where delta and nu were written down, nor what the law is applied to.

Every family with a delta is mean-normalised, `mean(omega) = delta`, so that one delta means one budget whatever the
shape; all of it is float64. Source: arXiv 2601.09212, the annealed schedule and its UniformRSD baseline; floor and
excess: ours. A floor is applied after the normalisation, so the mean grows: under the optimal residual a position with
omega < 1 is already lossless, raised to 1 it stays so and accepts more. `excess` needs none: it falls towards 1.
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
    """omega_1..omega_length of one family.

    delta: mean of omega before the floor (exponential, linear, uniform). nu: decay per position (exponential, excess).
    beta: what omega_1 has above 1 (excess).
    values: the list itself (custom). floor: `max(floor, omega_i)` on top of any family.
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
    """omega_i = delta * exp(-nu * i - mu), with mu such that the mean is delta. The paper's schedule.

    The first weight is exp(0) = 1, so nothing overflows; far positions may underflow to 0, "never accept".
    """
    in_range("delta", delta, OMEGA)
    in_range("nu", nu, DECAY)
    return _normalised([math.exp(-nu * i) for i in range(length)], delta)


def linear(length: int, delta: float) -> tuple[float, ...]:
    """Decreasing in equal steps: omega_i = delta * 2 * (L + 1 - i) / (L + 1), so omega_{L+1} would be 0."""
    in_range("delta", delta, OMEGA)
    return _normalised([float(length - i) for i in range(length)], delta)


def uniform(length: int, delta: float) -> tuple[float, ...]:
    """omega_i = delta. The paper's UniformRSD."""
    in_range("delta", delta, OMEGA)
    return (float(delta),) * length


def excess(length: int, beta: float, nu: float = DEFAULT_NU) -> tuple[float, ...]:
    """omega_i = 1 + beta * exp(-nu * (i - 1)): relaxed most at first, never under lossless. nu = 0 is uniform."""
    in_range("beta", beta, OMEGA)
    in_range("nu", nu, DECAY)
    return tuple(1.0 + beta * math.exp(-nu * i) for i in range(length))


def custom(length: int, values: Sequence[float] | None) -> tuple[float, ...]:
    """The caller's own list, one value per draft position, not normalised."""
    if values is None or len(values) != length:
        found = "no values" if values is None else f"{len(values)} values"
        raise UserError("a custom schedule", expected=f"{length} values, one per draft position", found=found)
    for i, value in enumerate(values, start=1):
        in_range(f"omega {i}", value, OMEGA)
    return tuple(float(v) for v in values)


def raised(omegas: Sequence[float], floor: float) -> tuple[float, ...]:
    """max(floor, omega_i)."""
    in_range("floor", floor, OMEGA)
    return tuple(max(float(floor), omega) for omega in omegas)


def _normalised(weights: list[float], delta: float) -> tuple[float, ...]:
    total = math.fsum(weights)
    return tuple(delta * len(weights) * w / total for w in weights)


def in_range(name: str, value: float, allowed: Range) -> None:
    """Raise UserError unless the number lies in the range; NaN lies in none."""
    if not allowed.low <= value <= allowed.high:
        raise UserError(name, expected=f"a number from {allowed.low:g} to {allowed.high:g}", found=str(value))


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise UserError unless the word is among those allowed."""
    if value not in allowed:
        raise UserError(f"the {name}", expected=f"one of {', '.join(allowed)}", found=repr(value))
