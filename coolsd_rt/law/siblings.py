"""Several drafts for one position: siblings of a tree, drawn from one Q without replacement and judged in turn.

Each sibling is judged by the rule of a chain, against the pair (P, Q) that the rejections before it left:

- P becomes G*: Norm([P - min(Q, omega * P)]_+), the same omega on every pair of a position.
- Q becomes Q without the rejected token, renormalised: the law of the next draw.

The first accepted sibling is the token; where none is accepted, the token is drawn from the P that is left. With
omega <= 1 the token has the law P, by induction over the siblings: given that all before were rejected, the token must
still be drawn from the P that is left, and the next sibling is drawn from the Q that is left. Source: arXiv 2601.09212
for G*; drafts without replacement are SpecInfer's and LANTERN++'s.

Works on arrays of any array-API namespace; the exact laws on NumPy's. Does not know trees, contexts, nor who draws the
siblings and the token after them.
Legend: R rows, V codes, k siblings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from coolsd_rt.arrays import Array, Floats64
from coolsd_rt.law.acceptance import accepts, overlap
from coolsd_rt.law.arrays import namespace
from coolsd_rt.law.residual import residual

NO_TOKEN = -1
"""Stands for a sibling that does not exist: Q had no other token left."""


@dataclass(frozen=True)
class SiblingVerdict:
    """What became of the siblings of each row.

    kept: int64 [R], index of the accepted sibling; k if none was accepted.
    left: weights [R, V], of any positive total, of the law of the token where none was accepted.
    degenerate: bool [R], whether a residual on the way had no mass, so that P stood in for it.
    """

    kept: Array
    left: Array
    degenerate: Array


@dataclass(frozen=True)
class NodeLaw:
    """The exact law of the token at a node with siblings.

    accepted: float64 [k, V], the probability that each code is the token because sibling j was accepted.
    after: float64 [V], that it is drawn after all siblings were rejected.
    """

    accepted: Floats64
    after: Floats64

    @property
    def rate(self) -> float:
        """Probability that any sibling is accepted."""
        return float(self.accepted.sum())

    @property
    def token(self) -> Floats64:
        """The law of the token, [V]."""
        return np.asarray(self.accepted.sum(0) + self.after, np.float64)


@dataclass(frozen=True)
class SiblingDraw:
    """One ordered draw of the siblings of a node.

    weight: its probability. tokens: the siblings in draw order, fewer than asked for where Q has fewer tokens.
    rates: the probability that each is accepted if all before it are rejected.
    left: float64 [V], the law of the token if all are rejected.
    """

    weight: float
    tokens: tuple[int, ...]
    rates: tuple[float, ...]
    left: Floats64


def remove_token(q: Array, tokens: Array) -> Array:
    """Return Q [R, V] without one token a row, int64 [R], renormalised; all zeros where nothing is left."""
    xp = namespace(q)
    codes = xp.arange(q.shape[-1], dtype=xp.int64, device=q.device)
    rest = xp.where(codes == tokens[:, None], xp.zeros_like(q), q)
    total = xp.sum(rest, axis=-1, keepdims=True)
    return rest / xp.where(total > 0, total, xp.ones_like(total))


def reject(p: Array, q: Array, omega: Array, tokens: Array) -> tuple[Array, Array, Array]:
    """Return what the rejection of `tokens`, int64 [R], leaves: weights of P, any total, and Q.

    omega: a number, or one for each row, [R, 1]. The third is where the residual was degenerate, bool [R].
    """
    weights, degenerate = residual(p, q, omega, "optimal")
    return weights, remove_token(q, tokens), degenerate


def normalised(weights: Array) -> Array:
    """Return weights [R, V] of any positive total with a total of 1."""
    return weights / namespace(weights).sum(weights, axis=-1, keepdims=True)


def judge_siblings(
    p: Array, q: Array, omega: Array, tokens: Array, uniforms: Array, forced: Array | None = None
) -> SiblingVerdict:
    """Judge the siblings of each row in draw order.

    p, q: P and Q at the position, [R, V], each row of sum 1.
    omega: relaxation of the position, a number or float64 [R].
    tokens: the siblings, int64 [R, k], each drawn from Q without those before it; `NO_TOKEN` where there is none.
    uniforms: one for each sibling, [R, k], in [0, 1).
    forced: bool [R], rows whose token is fixed (P = Q = a point mass): accepted whatever omega is.

    Products of probabilities and uniforms are computed in float64, residuals in the dtype of P, as in a chain.
    """
    xp, count = namespace(p), tokens.shape[1]
    rows = xp.arange(p.shape[0], dtype=xp.int64, device=p.device)
    omegas = xp.zeros(p.shape[0], dtype=xp.float64, device=p.device) + omega
    kept = xp.full(p.shape[0], count, dtype=xp.int64, device=p.device)
    degenerate, left = kept < count, p
    for j in range(count):
        exists = tokens[:, j] != NO_TOKEN
        x = xp.where(exists, tokens[:, j], 0)
        judged = (kept == count) & exists
        u, of_p, of_q = (xp.astype(part, xp.float64) for part in (uniforms[:, j], p[rows, x], q[rows, x]))
        accepted = accepts(u, of_p, of_q, omegas)
        accepted = judged & (accepted if forced is None else accepted | forced)
        kept = xp.where(accepted, j, kept)
        rejected = judged & ~accepted
        if not bool(xp.any(rejected)):
            continue
        weights, next_q, empty = reject(p, q, xp.astype(omegas, p.dtype)[:, None], x)
        left = xp.where(rejected[:, None], weights, left)
        p = xp.where(rejected[:, None], normalised(weights), p)
        q = xp.where(rejected[:, None], next_q, q)
        degenerate = degenerate | (rejected & empty)
    return SiblingVerdict(kept, left, degenerate)


def node_law(p: Floats64, q: Floats64, omega: float, siblings: int) -> NodeLaw:
    """Return the exact law of the token at a node of `siblings` siblings, from P and Q [V], by every ordered draw."""
    accepted, after = np.zeros((siblings, len(p))), np.zeros(len(p))

    def visit(p: Floats64, q: Floats64, weight: float, j: int) -> None:
        if j == siblings or not q.any():
            after[:] += weight * p[0]
            return
        kept = overlap(p, q, omega)
        accepted[j] += weight * kept[0]
        for x in np.flatnonzero(q[0] > kept[0]).tolist():
            left, next_q, _ = reject(p, q, omega, np.array([x]))
            visit(normalised(left), next_q, weight * float(q[0, x] - kept[0, x]), j + 1)

    visit(np.asarray(p, np.float64)[None], np.asarray(q, np.float64)[None], 1.0, 0)
    return NodeLaw(accepted, after)


def sibling_draws(p: Floats64, q: Floats64, omega: float, siblings: int) -> Iterator[SiblingDraw]:
    """Yield every ordered draw of the siblings of a node, from P and Q [V], with the rate of each sibling.

    A sibling behind one that is accepted whatever the uniform has rate 0: no residual is left to judge it by.
    """

    def visit(
        p: Floats64, q: Floats64, weight: float, done: tuple[int, ...], rates: tuple[float, ...], over: bool
    ) -> Iterator[SiblingDraw]:
        if len(done) == siblings or not q.any():
            yield SiblingDraw(weight, done, rates, p[0])
            return
        kept = overlap(p, q, omega)
        for x in np.flatnonzero(q[0]).tolist():
            left, next_q, empty = reject(p, q, omega, np.array([x]))
            rate = 0.0 if over else float(kept[0, x] / q[0, x])
            drawn = (weight * float(q[0, x]), (*done, x), (*rates, rate))
            yield from visit(normalised(left), next_q, *drawn, over or bool(empty[0]))

    yield from visit(np.asarray(p, np.float64)[None], np.asarray(q, np.float64)[None], 1.0, (), (), False)
