"""Two-step diffusion heads of one channel, for the proofs: start noise 0, w in the first step, xi in the last.

The mean of a step from the state x is u + guidance (c - u): the conditional half c and the unconditional half u are
nonlinear functions of the same x. The first step adds `first` times w, the last one `last` times xi.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coolsd_rt.arrays import Floats64
from coolsd_rt.law.continuous.quadrature import Nodes, ScalarHead, ScalarRule, position_law


@dataclass(frozen=True)
class TwoSteps:
    """A head. z: the condition. bend: what makes draft and target differ. first, last: deviations of the two steps."""

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


TARGET = TwoSteps()
DRAFTS = {
    "equal deviations": replace(TARGET, z=0.5, bend=1.05, first=0.6),
    "a wider draft": replace(TARGET, z=0.5, bend=1.05, first=0.6, last=0.6),
    "a narrower draft": replace(TARGET, z=0.1, bend=1.3, first=0.8, last=0.4),
}
X = np.linspace(-3.5, 4.5, 17)


def mean_over_pairs(target: ScalarHead, draft: ScalarHead) -> tuple[Floats64, float]:
    """The density of a token at X and the acceptance, for heads of two numbers of noise, at omega 1."""
    nodes, out, rate = Nodes.normal(6, 16, 7.5), np.zeros(len(X)), 0.0
    for value, weight in zip(nodes.points, nodes.weights, strict=True):
        pairs = np.stack([np.full(len(nodes.points), value), nodes.points], axis=-1)
        law = position_law(X, target, draft, ScalarRule(), pairs)
        out += weight * (nodes.weights @ law.out)
        rate += weight * float(nodes.weights @ law.acceptance)
    return out, rate
