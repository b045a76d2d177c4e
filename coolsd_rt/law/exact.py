"""The exact distribution of the tokens that rounds produce, by enumeration, for small V.

Knows P and Q as functions of the tokens so far. Does not know models, sampling, or the loop that it describes.
Rounds of any rule that goes from position to position are enumerated by `judged_round`; the rules themselves are in
`coolsd_rt.law.position`, `coolsd_rt.law.siblings` and `coolsd_rt.law.rivals`.

Legend: V codes, L draft length. A context is the tuple of tokens decided so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.law.position import Judge, position_law
from coolsd_rt.law.residual import Resampler
from coolsd_rt.law.rules import Law
from coolsd_rt.law.tolerance import Tolerance

Context = tuple[int, ...]
Model = Callable[[Context], NDArray[np.float64]]  # context -> distribution over the next token, float64 [V]
Joint = dict[Context, float]  # tokens -> probability


def step_law(
    p: Any, q: Any, omega: float, resampler: Resampler, tolerance: Tolerance | None = None
) -> tuple[NDArray[np.float64], float]:
    """Return the distribution of the token at one draft position, float64 [V], and the acceptance rate.

    distribution = overlap + (1 - rate) * G, where G is the residual; the rate is the sum of the overlap.
    """
    accepted, after = position_law(p, q, Law((omega,), resampler, tolerance), 0)
    return accepted + after, float(accepted.sum())


def round_law(target: Model, draft: Model, law: Law, context: Context = (), limit: int | None = None) -> Joint:
    """Return the probability of each token sequence that one round can commit after `context`.

    Keys have 1 to L + 1 tokens; values sum to 1.

    limit: tokens left in the image. The draft length is clipped to limit - 1, and each omega keeps its position.
    """
    length = law.length if limit is None else min(law.length, limit - 1)
    return judged_round(target, draft, lambda p, q, i: position_law(p, q, law, i), length, context)


def judged_round(target: Model, draft: Model, judge: Judge, length: int, context: Context = ()) -> Joint:
    """Return the probability of each token sequence that a round of `length` draft positions can commit.

    Every position is judged by `judge`; the round ends at the first rejection, or with a bonus token from P.
    """
    out: Joint = {}
    for tokens, weight in _round(target, draft, judge, length, context, ()):
        out[tokens] = out.get(tokens, 0.0) + weight
    return out


def image_law(target: Model, draft: Model, law: Law, tokens: int) -> Joint:
    """Return the joint distribution of a whole image of `tokens` tokens.

    The first token is drawn from P, then rounds follow until the image is full.
    """
    out: Joint = {}
    open_: Joint = {(x,): w for x, w in _support(target(()))}
    while open_:
        grown: Joint = {}
        for context, weight in open_.items():
            into = out if len(context) == tokens else grown
            if into is out:
                into[context] = into.get(context, 0.0) + weight
                continue
            for new, w in round_law(target, draft, law, context, tokens - len(context)).items():
                grown[context + new] = grown.get(context + new, 0.0) + weight * w
        open_ = grown
    return out


def window_law(target: Model, draft: Model, law: Law, context: Context = ()) -> Joint:
    """Return the joint distribution of the L tokens after `context`: one round, then the target for the rest.

    The positions that the round leaves undecided follow the target's distribution. So the distance to `target_law` is
    that of this round alone, without the rounds after it.
    """
    return completed(target, round_law(target, draft, law, context), law.length, context)


def completed(target: Model, emitted: Joint, length: int, context: Context = ()) -> Joint:
    """Return the joint distribution of the first `length` tokens of `emitted`; the target continues what is shorter."""
    out: Joint = {}
    for tokens, weight in emitted.items():
        kept = tokens[:length]
        for rest, w in target_law(target, length - len(kept), context + kept).items():
            out[kept + rest] = out.get(kept + rest, 0.0) + weight * w
    return out


def target_law(target: Model, tokens: int, context: Context = ()) -> Joint:
    """Return the joint distribution of the next `tokens` tokens under the target alone."""
    joint: Joint = {(): 1.0}
    for _ in range(tokens):
        joint = {(*c, x): w * p for c, w in joint.items() for x, p in _support(target(context + c))}
    return joint


def accept_length(target: Model, draft: Model, law: Law, context: Context = ()) -> float:
    """Return the expected number of tokens of one round after `context`, including the resampled or bonus token."""
    return mean_length(round_law(target, draft, law, context))


def mean_length(emitted: Joint) -> float:
    """Return the expected number of tokens."""
    return math.fsum(len(tokens) * weight for tokens, weight in emitted.items())


def total_variation(a: Joint, b: Joint) -> float:
    """Return half the L1 distance between two joint distributions."""
    return 0.5 * math.fsum(abs(a.get(k, 0.0) - b.get(k, 0.0)) for k in a.keys() | b.keys())


def kl(a: Joint, b: Joint) -> float:
    """Return KL(a || b) in nats; infinite where a has support and b has none."""
    if any(w > 0 and b.get(k, 0.0) == 0 for k, w in a.items()):
        return math.inf
    return math.fsum(w * math.log(w / b[k]) for k, w in a.items() if w > 0)


def _round(
    target: Model, draft: Model, judge: Judge, length: int, context: Context, done: Context
) -> Iterator[tuple[Context, float]]:
    """Yield every way a round can end once the drafts `done` are accepted, with its probability."""
    p = target(context + done)
    if len(done) == length:
        yield from (((*done, x), w) for x, w in _support(p))
        return
    accepted, after = judge(p, draft(context + done), len(done))
    for x, w in _support(accepted):
        yield from ((tokens, w * v) for tokens, v in _round(target, draft, judge, length, context, (*done, x)))
    yield from (((*done, x), w) for x, w in _support(after))


def _support(law: NDArray[np.float64]) -> Iterator[tuple[int, float]]:
    return ((x, float(w)) for x, w in enumerate(law) if w > 0)
