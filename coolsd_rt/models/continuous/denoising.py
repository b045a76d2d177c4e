"""The denoising process of a diffusion head: the cosine schedule, and the steps by which a token is drawn.

A state at time t, from T (noise alone) to 0 (the clean token x), is a_t x + b_t noise, a_t^2 + b_t^2 = 1. A network
predicts v = a_t noise - b_t x, so that x = a_t state - b_t v, which is defined at t = T too, where a_t is 0. Steps
before the last one draw from the Gaussian of q(state' | state, x) with its fixed variance. Knows numbers. Does not know
networks or where Gaussians come from. Sources: cosine schedule, arXiv 2102.09672; v, arXiv 2202.00512.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

_OFFSET = 0.008  # of the cosine schedule, so that the first step's noise is not too small


@dataclass(frozen=True)
class StepNumbers:
    """One step from time t to an earlier one: state' = of_clean x + of_state state + deviation noise.

    a, b: those of time t, by which x follows from v.
    """

    time: int
    a: float
    b: float
    of_clean: float
    of_state: float
    deviation: float


@dataclass(frozen=True)
class Denoising:
    """The process of T trained steps, drawn in K steps. Raises nothing: `ContinuousConfig.faults` checks both."""

    trained: int
    steps: int

    @cached_property
    def table(self) -> tuple[tuple[float, float], ...]:
        """a_t and b_t of the times 0 .. T."""
        angles = [(t / self.trained + _OFFSET) / (1 + _OFFSET) * math.pi / 2 for t in range(self.trained + 1)]
        start = math.cos(angles[0])
        clean = [min(1.0, max(0.0, math.cos(angle) / start)) for angle in angles]
        return tuple((a, math.sqrt(1 - a * a)) for a in clean)

    @property
    def times(self) -> tuple[int, ...]:
        """The K times that are visited: T first, evenly spaced, the last at least 1."""
        return tuple(round(self.trained * (self.steps - k) / self.steps) for k in range(self.steps))

    @cached_property
    def before_last(self) -> tuple[StepNumbers, ...]:
        """The K - 1 steps before the last one."""
        times = self.times
        return tuple(self._between(t, s) for t, s in pairwise(times))

    @property
    def last_time(self) -> int:
        """The time of the state before the last step."""
        return self.times[-1]

    def _between(self, t: int, s: int) -> StepNumbers:
        """The Gaussian of the state at time s given that at time t > s and the clean token."""
        (a, b), (a_s, b_s) = self.table[t], self.table[s]
        ratio = a / a_s
        added = 1 - ratio * ratio  # the variance of the noise between the two times
        return StepNumbers(t, a, b, a_s * added / b**2, ratio * b_s**2 / b**2, b_s * math.sqrt(added) / b)
