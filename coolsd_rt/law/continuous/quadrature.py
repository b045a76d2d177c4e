"""The exact law of continuous tokens that rounds produce, by quadrature, for tokens of one channel.

What `coolsd_rt.law.exact` is for codes. A head maps the noise of all steps but the last, here one number w, to the mean
of its last step by any function: the state before the last step may depend on w in any way. Target and draft get the
same w. The densities are those of the sampler: `keep_probability` and `retry_probability` at log ratios of `log_ratio`,
each normalised by an integral of its own, so that nothing is right by definition. `ScalarRule` also describes wrong
rules, for comparison.

Knows heads as functions. Does not know models, sampling, or the loop that it describes.

Legend: W nodes of w, X values of a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from coolsd_rt.arrays import Floats64
from coolsd_rt.law.continuous.gaussians import TRUE_RATIO, LastStep, RatioForm, log_density, log_ratio
from coolsd_rt.law.continuous.rule import keep_probability, log_omega, retry_probability

Fallback = Literal["target", "last", "zero"]
SPAN = 10.0  # deviations that an integral reaches past the outer mean: 1e-23 of a Gaussian lies beyond
_ORDER, _PIECES = 20, 10  # Gauss-Legendre between two kinks


@dataclass(frozen=True)
class Nodes:
    """Points [n], or [n, k] of k numbers, and weights [n] of a quadrature, float64."""

    points: Floats64
    weights: Floats64

    @staticmethod
    def of(edges: Floats64, order: int = _ORDER) -> Nodes:
        """Return Gauss-Legendre of an order on each interval between edges, [E] or [..., E]."""
        points, weights = np.polynomial.legendre.leggauss(order)
        half, middle = 0.5 * np.diff(edges)[..., None], 0.5 * (edges[..., 1:] + edges[..., :-1])[..., None]
        shape = (*edges.shape[:-1], -1)
        return Nodes((middle + half * points).reshape(shape), (half * weights).reshape(shape))

    @staticmethod
    def normal(intervals: int = 40, order: int = 10, reach: float = 9.0) -> Nodes:
        """Return nodes whose weighted sums are expectations over a standard normal."""
        nodes = Nodes.of(np.linspace(-reach, reach, intervals + 1), order)
        weights = nodes.weights * np.exp(log_density(nodes.points[:, None, None], _STANDARD)[:, 0])
        return Nodes(nodes.points, weights)

    def pairs(self) -> Nodes:
        """Return the nodes of two independent numbers: points [n^2, 2], weights [n^2]."""
        both = np.stack(np.meshgrid(self.points, self.points, indexing="ij"), axis=-1).reshape(-1, 2)
        return Nodes(both, np.outer(self.weights, self.weights).ravel())


_STANDARD = LastStep(np.zeros((1, 1)), np.ones(1))


@dataclass(frozen=True)
class ScalarHead:
    """A diffusion head of one channel: w [W] to the last step's mean [W], and the last step's deviation.

    w may also be [W, k]: several numbers of noise.
    """

    mean: Callable[[Floats64], Floats64]
    deviation: float

    def last_step(self, w: Floats64) -> LastStep:
        """Return the Gaussians of the last step, a row for each w."""
        return LastStep(np.asarray(self.mean(w), np.float64)[:, None], np.full(len(w), self.deviation))


@dataclass(frozen=True)
class ScalarRule:
    """A rule of one position. All but `omega` and `bound` describe comparisons.

    omega: relaxation. bound: most tries for G*; None: without end.
    form: how the ratio is computed, for acceptance and for tries.
    fallback: after `bound` tries, a fresh draw from P, the last try, or the number 0.
    """

    omega: float = 1.0
    bound: int | None = None
    form: RatioForm = TRUE_RATIO
    fallback: Fallback = "target"


@dataclass(frozen=True)
class ScalarLaw:
    """The law of a token for each w. The token's own law is the mean over w.

    kept, redrawn, target: densities [W, X]: of drafts that stay, of tokens that replace one (a fallback included), and
    of the target's token. The first two add up to the density of the token, but for the atom.
    acceptance, retry, fallback: [W]: probability that a draft is kept, that a try is kept, and that the bound is
    reached.
    atom: [W], probability of the token 0 that is no density (fallback "zero").
    """

    kept: Floats64
    redrawn: Floats64
    target: Floats64
    acceptance: Floats64
    retry: Floats64
    fallback: Floats64
    atom: Floats64

    @property
    def out(self) -> Floats64:
        """The density of the token, [W, X]."""
        return self.kept + self.redrawn


def position_law(x: Floats64, target: ScalarHead, draft: ScalarHead, rule: ScalarRule, w: Floats64) -> ScalarLaw:
    """Return the law of one position's token at x [X], for each w [W]."""
    p, q = target.last_step(w), draft.last_step(w)
    kept, tried, p_x = _densities(np.broadcast_to(x[:, None], (len(x), len(w))), p, q, rule)
    nodes = _nodes(p, q, rule)
    keep, retry, _ = _densities(nodes.points.T, p, q, rule)
    acceptance, retry = (np.asarray((part * nodes.weights.T).sum(0)) for part in (keep, retry))
    rejected = np.maximum(0.0, 1 - acceptance)
    missed = np.zeros(len(w)) if rule.bound is None else np.maximum(0.0, 1 - retry) ** rule.bound
    redrawn = tried * (rejected * (1 - missed) / np.where(retry > 0, retry, 1.0))
    if rule.fallback == "target":
        redrawn = redrawn + p_x * (rejected * missed)
    elif rule.fallback == "last":
        redrawn = redrawn + (p_x - tried) * (rejected * missed / (1 - retry))
    atom = rejected * missed * (rule.fallback == "zero")
    return ScalarLaw(kept.T, redrawn.T, p_x.T, acceptance, retry, rejected * missed, atom)


Models = Callable[[float | None], tuple[ScalarHead, ScalarHead]]


def two_token_law(
    x: tuple[Floats64, Floats64], models: Models, rules: tuple[ScalarRule, ScalarRule], w: Nodes
) -> tuple[Floats64, Floats64]:
    """Return the joint density of two tokens under a round of two drafts, and under the target: [X1, X2] each.

    models: the heads of the first token (given None), and of the second given the first. rules: of both draft
    positions. If the first draft is kept, the second token is decided by the second position of this round; otherwise
    by the first position of the next. Each position has noise of its own.
    """
    first = position_law(x[0], *models(None), rules[0], w.points)
    kept, redrawn, target = (w.weights @ part for part in (first.kept, first.redrawn, first.target))
    out, truth = [], []
    for at, value in enumerate(x[0]):
        here, again = (position_law(x[1], *models(float(value)), rule, w.points) for rule in (rules[1], rules[0]))
        out.append(kept[at] * (w.weights @ here.out) + redrawn[at] * (w.weights @ again.out))
        truth.append(target[at] * (w.weights @ here.target))
    return np.array(out), np.array(truth)


@dataclass(frozen=True)
class Distances:
    """How far a token's law is from the target's: total variation, Kolmogorov-Smirnov; and its mean acceptance.

    fallback: probability that the bound on tries is reached.
    """

    tv: float
    ks: float
    acceptance: float
    fallback: float


def distances(target: ScalarHead, draft: ScalarHead, rule: ScalarRule, w: Nodes, edges: Floats64) -> Distances:
    """Compare the law of one position with the target's, the noise w averaged out.

    edges: of the intervals of x, which have to reach past both laws; 0 among them for the fallback "zero".
    """
    x = Nodes.of(edges, 8)
    found = position_law(x.points, target, draft, rule, w.points)
    apart = w.weights @ (found.out - found.target)
    atom = float(w.weights @ found.atom)
    ends = edges[1:]
    cumulative = np.cumsum((apart * x.weights).reshape(len(ends), -1).sum(1)) + atom * (ends >= 0)
    before = cumulative - atom * (ends == 0)  # the largest distance may lie on either side of the step
    tv = 0.5 * (float(np.abs(apart) @ x.weights) + atom)
    ks = float(max(np.abs(cumulative).max(), np.abs(before).max()))
    return Distances(tv, ks, float(w.weights @ found.acceptance), float(w.weights @ found.fallback))


def _densities(x: Floats64, p: LastStep, q: LastStep, rule: ScalarRule) -> tuple[Floats64, Floats64, Floats64]:
    """Q keep, P retry and P at x [X, W], a column for each row of p and q."""
    tokens = x[..., None]
    logs = log_ratio(tokens, p, q, rule.form)
    p_x, q_x = np.exp(log_density(tokens, p)), np.exp(log_density(tokens, q))
    return q_x * keep_probability(logs, rule.omega), p_x * retry_probability(logs, rule.omega), p_x


def _nodes(p: LastStep, q: LastStep, rule: ScalarRule) -> Nodes:
    """Nodes [W, n] over both Gaussians, with an interval's end at each kink: log ratio -log omega, and 0."""
    a, b = p.mean[:, 0], q.mean[:, 0]
    span = SPAN * np.maximum(p.deviation, q.deviation)
    low, high = np.minimum(a, b) - span, np.maximum(a, b) + span
    scale_p, scale_q = rule.form.scale(p), rule.form.scale(q)
    # The log ratio is a quadratic of x: square x^2 + slope x + start.
    square = 0.5 * (scale_q**-2 - scale_p**-2) / rule.form.temperature
    slope = (a / scale_p**2 - b / scale_q**2) / rule.form.temperature
    start = log_ratio(np.zeros((1, len(a), 1)), p, q, rule.form)[0]
    kinks = [root for level in (float(log_omega(rule.omega)), 0.0) for root in _roots(square, slope, start + level)]
    ends = np.stack([low, high, *(np.clip(np.nan_to_num(k, nan=-1e300), low, high) for k in kinks)], axis=-1)
    ends = np.sort(ends, axis=-1)
    inner = np.arange(_PIECES) / _PIECES
    steps = (ends[:, :-1, None] + np.diff(ends)[..., None] * inner).reshape(len(a), -1)
    return Nodes.of(np.concatenate([steps, ends[:, -1:]], axis=-1))


def _roots(square: Floats64, slope: Floats64, start: Floats64) -> tuple[Floats64, Floats64]:
    """Both roots of quadratics [W], NaN where there is none; of a line, its root twice."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        half = -0.5 * (slope + np.copysign(np.sqrt(slope**2 - 4 * square * start), slope))
        return np.where(square == 0, np.nan, half / square), start / half
