"""Diffusion heads of one channel and two steps, for proofs and figures of the law of continuous tokens.

The start noise is 0, w enters the first step and xi the last. Knows functions of numbers. Does not know laws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coolsd_rt.arrays import Floats64
from coolsd_rt.law.continuous.quadrature import ScalarHead


@dataclass(frozen=True)
class TwoSteps:
    """A head of two steps.

    The mean of a step from the state x is u + guidance (c - u): the conditional half c and the unconditional half u are
    nonlinear functions of the same x. The first step adds `first` times w, the last one `last` times xi.

    z: the condition. bend: of the nonlinear function; draft and target differ in it. first, last: deviations.
    """

    z: float = 0.3
    bend: float = 1.2
    first: float = 0.7
    last: float = 0.5
    guidance: float = 1.5

    def _half(self, x: Floats64, z: float) -> Floats64:
        return np.asarray(np.sin(self.bend * x + z) + 0.4 * x)

    def _mean(self, conditional: Floats64, unconditional: Floats64) -> Floats64:
        c, u = self._half(conditional, self.z), self._half(unconditional, 0.0)
        return np.asarray(u + self.guidance * (c - u))

    def _state(self, w: Floats64) -> Floats64:
        start = np.zeros_like(w)
        return self._mean(start, start) + self.first * w

    def last_mean(self, w: Floats64) -> Floats64:
        """The mean of the last step, both halves of the guidance fed the same state."""
        state = self._state(w)
        return self._mean(state, state)

    def torn_mean(self, w: Floats64) -> Floats64:
        """A bug: the unconditional half has noise of its own, w[:, 1]."""
        return self._mean(self._state(w[:, 0]), self._state(w[:, 1]))

    @property
    def head(self) -> ScalarHead:
        return ScalarHead(self.last_mean, self.last)

    def reading(self, column: int) -> ScalarHead:
        """The head over several numbers of noise, of which it takes one."""
        return ScalarHead(lambda w: self.last_mean(w[:, column]), self.last)
