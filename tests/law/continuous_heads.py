"""Two-step heads for the proofs, and the law of a token whose heads read two numbers of noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coolsd_rt.arrays import Floats64
from coolsd_rt.law.continuous.quadrature import Nodes, ScalarHead, ScalarRule, position_law
from tools.paper.two_steps import TwoSteps

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
